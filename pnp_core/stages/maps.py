"""Salience stage: the images of a shard to maps per candidate class, by whatever method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np

from pnp_core.candidates import (
    CandidateSource,
    Choice,
    Images,
    Ranking,
    SourceContext,
    candidates_revision,
    choose,
    open_candidates,
    ranking_of,
)
from pnp_core.candidates.config import CandidatesConfig
from pnp_core.data import ClassMaps, Progress, Quarantined, Sample, ShardRef, StageResult, silent
from pnp_core.errors import MethodError, UnusableImage, UsageError
from pnp_core.finite import require_finite
from pnp_core.frozen import Config
from pnp_core.inputs.cards import DatasetCard
from pnp_core.inputs.images import DecodedImage, decode_image
from pnp_core.methods import AnyMethod, Pinned, load_method, method_of
from pnp_core.methods.base import Loaded, LoadedMethod, MethodConfig, Question, Seen, StoredMaps
from pnp_core.methods.prompted import prompted
from pnp_core.stages.ahead import prepared_ahead
from pnp_core.stages.config import RuntimeConfig, SalienceConfig
from pnp_core.stages.fitting import batch_size, fitting
from pnp_core.storage.class_maps import STAGE, class_map_files
from pnp_core.storage.completion import StageFolder, StageOutput
from pnp_core.storage.run_folder import RunFolder, fingerprint
from pnp_core.storage.shards import read_shard

VERSION = 2


class SalienceJob(Config):
    """What the salience stage does, for any shard of a run."""

    out: str
    method: AnyMethod
    config: SalienceConfig
    runtime: RuntimeConfig
    card: DatasetCard
    """The classes, and how captions say them."""
    vocabulary: tuple[int, ...]
    """Labels that may be candidates."""
    pinned: Pinned
    """The method's weights."""
    candidates: str | None = None
    """Revision of the candidate source's own file or weights."""
    ranking: Ranking | None = None
    """Where there are too many classes to look at each."""
    prompts: tuple[tuple[str, ...], ...] = ()
    """What each class is asked by, from label 1, where one has several prompts; else each is by its caption."""

    @classmethod
    def create(
        cls,
        out: str,
        method: AnyMethod,
        config: SalienceConfig,
        runtime: RuntimeConfig,
        card: DatasetCard,
        vocabulary: tuple[int, ...] | None = None,
        pinned: Pinned | None = None,
        prompts: tuple[tuple[str, ...], ...] = (),
    ) -> SalienceJob:
        """Pin the weights and the candidates' file.

        Args:
            vocabulary: labels that may be candidates; all of the card when None.
            pinned: the weights, where they are pinned already.
            prompts: what each class is asked by, where one has several.

        Raises:
            UsageError: the weights are missing or unfit for the settings; there is no such source of candidates, its
                file is missing, or the method has no match score to be one, or cannot do what the run asks.
        """
        revision = cls.pin_candidates(method, config.candidates)
        weights = pinned or method_of(method).pin(method)
        vocabulary = vocabulary or tuple(range(1, len(card.classes) + 1))
        question = Question(
            out=out,
            card=card.name,
            names=card.names,
            vocabulary=vocabulary,
            candidates=config.candidates.facts(),
        )
        method_of(method).check_question(method, weights, question)
        match_all, own = weights.match_all, weights.contrastive
        return cls(
            out=out,
            method=method,
            config=config,
            runtime=runtime,
            card=card,
            vocabulary=vocabulary,
            pinned=weights,
            candidates=revision,
            ranking=ranking_of(config.candidates, own, match_all, len(vocabulary)),
            prompts=prompts,
        )

    @staticmethod
    def pin_candidates(method: MethodConfig, candidates: CandidatesConfig) -> str | None:
        """What names the data of the source of candidates.

        Raises:
            PnpError: there is no such source, its file is missing, or the method has no match score to be one.
        """
        if candidates.source == "itm" and not method.matches:
            raise UsageError(f"{method.name} has no match score; use --candidates labels, vocabulary, clip or file")
        return candidates_revision(candidates)

    @property
    def fingerprint(self) -> str:
        """Names the configuration and the weights, not where they lie nor what runs them."""
        return self.fingerprint_without()

    def fingerprint_without(self, *settings: str) -> str:
        """The fingerprint of what does not depend on some settings of the method."""
        own = {name: fact for name, fact in self.method.map_facts().items() if name not in settings}
        classes: list[Any] = [self.card.captions, self.vocabulary, self.candidates]
        # A file of candidates may use any spelling or number of a class.
        spellings = [c.model_dump(exclude={"authors"}) for c in self.card.classes]
        classes += spellings if self.config.candidates.source == "file" else []
        # What is newer than the first runs enters only where it is not what those had.
        newer: list[Any] = [self.captions] if self.captions != self.card.captions else []
        newer += [{"backbone": self.pinned.version}] if self.pinned.version > 1 else []
        newer += [{"ranking": self.ranking.facts()}] if self.ranking else []
        newer += [{"prompts": self.prompts}] if self.prompts else []
        return fingerprint(STAGE, VERSION, {**self.config.facts(), **own}, classes, self.pinned.revision, *newer)

    @property
    def captions(self) -> tuple[str, ...]:
        """The classes as captions of this run say them, from label 1."""
        return self.card.captions_in(self.config.words)

    @property
    def questions(self) -> tuple[str, ...]:
        """What the method is asked: the captions, or of classes with several prompts all of these."""
        return tuple(chain.from_iterable(self.prompts)) or self.captions

    def prompts_of(self, label: int) -> tuple[str, ...]:
        """What a class is asked by."""
        return self.prompts[label - 1] if self.prompts else (self.captions[label - 1],)

    @property
    def folder(self) -> StageFolder:
        """Where the maps lie."""
        return StageFolder(RunFolder(self.out), STAGE, self.fingerprint)

    def decode(self, sample: Sample) -> DecodedImage:
        """A sample's pixels.

        Raises:
            UnreadableImage: it cannot be decoded, or has too many.
        """
        return decode_image(sample.image, self.config.max_pixels)

    def load(self) -> Loaded:
        """The method with its model; the last one stays loaded in this process.

        Raises:
            UsageError: the weights do not fit the architecture.
        """
        loaded = load_method(self.method, self.pinned, self.questions, self.runtime.device)
        if not self.prompts or not isinstance(loaded, LoadedMethod):
            return loaded
        return prompted(loaded, self.method, self.prompts)


@dataclass(frozen=True)
class _Input:
    """A decoded sample: what method and source of candidates need, and what the record keeps."""

    sample: Sample
    height: int
    width: int
    notes: tuple[str, ...]
    for_method: Any
    for_candidates: Any


Decode = Callable[[Sample], DecodedImage]
"""A sample to its pixels. An `UnusableImage` that it raises is the sample's fault, which is then quarantined."""
Ready = TypeVar("Ready", "_Input", "_Recalled")


class _Half(ABC, Generic[Ready]):
    """How the samples of a shard become maps: each is prepared, on threads, and then a batch of them together."""

    job: SalienceJob

    def prepare(self, decode: Decode, sample: Sample) -> Ready | Quarantined:
        """Decode a sample; runs on threads."""
        if sample.fault is not None:
            return Quarantined(sample.key, sample.source, "shard", sample.fault)
        try:
            return self.ready(sample, decode(sample))
        except UnusableImage as error:
            return Quarantined(sample.key, sample.source, STAGE, str(error))

    @abstractmethod
    def ready(self, sample: Sample, image: DecodedImage) -> Ready:
        """What `results` needs of a decoded sample.

        Raises:
            UnusableImage: it is to be quarantined.
        """

    @abstractmethod
    def results(self, batch: list[Ready]) -> Iterator[ClassMaps | Quarantined]:
        """What becomes of the samples of a batch."""


@dataclass(frozen=True)
class _Recalled:
    """A sample and its stored maps."""

    sample: Sample
    maps: ClassMaps


@dataclass(frozen=True)
class _Recalling(_Half[_Recalled]):
    """Maps and candidates are those of finished runs."""

    job: SalienceJob
    method: StoredMaps

    def ready(self, sample: Sample, image: DecodedImage) -> _Recalled:
        """The stored maps, with what was done to read the image now."""
        height, width = image.pixels.shape[:2]
        maps = self.method.recall(sample.key, (height, width))
        return _Recalled(sample, replace(maps, notes=(*image.notes, *sample.notes)))

    def results(self, batch: list[_Recalled]) -> Iterator[ClassMaps]:
        """As they are."""
        return (one.maps for one in batch)


@dataclass(frozen=True)
class _Looking(_Half[_Input]):
    """A source chooses candidates, and a model looks at the images."""

    job: SalienceJob
    method: LoadedMethod
    source: CandidateSource

    @classmethod
    def create(cls, job: SalienceJob, method: LoadedMethod) -> _Looking:
        context = SourceContext(job.config.candidates, job.card, job.vocabulary, job.runtime.device, job.prompts)
        return cls(job, method, open_candidates(context, job.candidates, job.ranking))

    def ready(self, sample: Sample, image: DecodedImage) -> _Input:
        """What method and source of candidates need of the pixels."""
        height, width = image.pixels.shape[:2]
        prepared = self.method.prepare_keyed(sample.key, image.pixels), self.source.preprocess(image.pixels)
        return _Input(sample, height, width, (*image.notes, *sample.notes), *prepared)

    def results(self, batch: list[_Input]) -> Iterator[ClassMaps | Quarantined]:
        """Choose the candidates of a batch, and look at the images that can be labelled; in parts where memory ends."""
        fits = fitting(STAGE, self.job.fingerprint, self.job.runtime)
        return chain.from_iterable(fits.parts(batch, lambda part: list(self._results(part))))

    def _results(self, batch: Sequence[_Input]) -> Iterator[ClassMaps | Quarantined]:
        encoded = self.method.encode([item.for_method for item in batch])
        choices = self._choices(batch, encoded)
        seen = self.method.look(encoded, {i: choice.classes for i, choice in enumerate(choices) if choice.usable})
        for i, (item, choice) in enumerate(zip(batch, choices, strict=True)):
            if choice.usable:
                yield self._class_maps(item, choice, seen.get(i))
            else:
                yield Quarantined(item.sample.key, item.sample.source, STAGE, choice.how)

    def _choices(self, batch: Sequence[_Input], encoded: Any) -> list[Choice]:
        images = Images(
            [item.sample for item in batch],
            partial(self.method.match, encoded),
            partial(self.method.match_each, encoded),
            partial(self.method.similarity, encoded),
        )
        proposals = self.source.propose(images, [item.for_candidates for item in batch])
        for item, proposal in zip(batch, proposals, strict=True):  # before one that is not finite is no match
            if proposal.scores:
                self._require_finite(np.array(proposal.scores), "the candidate score", item, proposal.classes)
        config, least = self.job.config.candidates, self.source.default_min_score
        return [choose(proposal, config, least, self.job.vocabulary) for proposal in proposals]

    def _require_finite(self, values: np.ndarray, what: str, item: _Input, classes: tuple[int, ...]) -> None:
        """Refuse what a model made of an image, a part for each class, where it is NaN or infinity."""
        names = [self.job.card.names[label - 1] if label else "background" for label in classes]
        require_finite(values, what, item.sample.key, names, self.method.overflow)

    def _class_maps(self, item: _Input, choice: Choice, seen: Seen | None) -> ClassMaps:
        if seen is None or not seen.fits(choice.classes):
            raise MethodError(
                f"method {self.job.method.name} gives maps of {item.sample.key} that fit no classes asked"
            )
        for one in (seen, *seen.parts):
            self._require_finite(one.maps.swapaxes(0, 1), "the salience", item, one.of or choice.classes)
        if seen.match is not None:
            self._require_finite(seen.match, "the match probability", item, choice.classes)
        own = ClassMaps(
            maps=seen.maps,
            classes=choice.classes,
            itm=seen.match,
            height=item.height,
            width=item.width,
            scores=choice.scores,
            chosen=choice.how,
            notes=item.notes,
            of=seen.of,
        )
        return replace(own, parts=tuple(replace(own, maps=part.maps, itm=None, of=part.of) for part in seen.parts))


def extract_maps(
    samples: Iterable[Sample],
    job: SalienceJob,
    progress: Progress,
    method: Loaded | None = None,
    decode: Decode | None = None,
) -> Iterator[tuple[Sample, ClassMaps] | Quarantined]:
    """Process samples batch by batch; decoding runs on threads, in order.

    Args:
        method: what looks at the images, where that is not the job's method as it is configured.
        decode: makes pixels of a sample; of its encoded picture when None.

    Raises:
        ShardError: maps, match probability or candidate score of an image are not finite.
    """
    if job.runtime.threads:  # holds for the calling thread, hence here
        import torch  # with the model: who has nothing to look at does not wait for it

        torch.set_num_threads(job.runtime.threads)
    half = _half(job, method or job.load())
    prepare = partial(half.prepare, decode or job.decode)
    for prepared in prepared_ahead(samples, prepare, batch_size(job.runtime)):
        ready = [p for p in prepared if not isinstance(p, Quarantined)]
        results = half.results(ready) if ready else iter(())
        for item in prepared:
            if isinstance(item, Quarantined):
                yield item
                continue
            result = next(results)
            yield result if isinstance(result, Quarantined) else (item.sample, result)
        progress(len(prepared))


def _half(job: SalienceJob, method: Loaded) -> _Half[Any]:
    if isinstance(method, StoredMaps):
        return _Recalling(job, method)
    if isinstance(method, LoadedMethod):
        return _Looking.create(job, method)
    raise MethodError(f"method {job.method.name} neither looks at images nor has maps of them")


def extract_shard(job: SalienceJob, shard: ShardRef, progress: Progress = silent) -> StageResult:
    """Run the salience stage for one shard, unless it is complete.

    Raises:
        ShardError: maps, match probability or candidate score of an image are not finite.
        PnpError: the model, the captions or the run folder are at fault.
    """
    run = RunFolder(job.out)

    def work() -> StageOutput:
        images: list[tuple[Sample, ClassMaps]] = []
        quarantined: list[Quarantined] = []
        for result in extract_maps(read_shard(run, shard), job, progress):
            if isinstance(result, Quarantined):
                quarantined.append(result)
            else:
                images.append(result)
        return StageOutput(class_map_files(images), len(images), quarantined)

    return job.folder.complete(shard.name, shard.sha256, work)
