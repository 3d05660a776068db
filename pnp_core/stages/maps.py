"""Salience stage: the images of a shard to maps per candidate class, by whatever method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from pnp_core.candidates import (
    CandidateSource,
    Choice,
    Images,
    SourceContext,
    candidates_revision,
    choose,
    open_candidates,
)
from pnp_core.data import ClassMaps, Progress, Quarantined, Sample, ShardRef, StageResult, silent
from pnp_core.errors import MethodError, UnreadableImage, UsageError
from pnp_core.finite import require_finite
from pnp_core.frozen import Config
from pnp_core.inputs.cards import DatasetCard
from pnp_core.inputs.images import decode_image
from pnp_core.methods import AnyMethod, LoadedMethod, Pinned, load_method, method_of
from pnp_core.methods.base import Seen
from pnp_core.stages.config import RuntimeConfig, SalienceConfig
from pnp_core.storage.completion import StageFolder, StageOutput
from pnp_core.storage.run_folder import RunFolder, fingerprint, table_bytes
from pnp_core.storage.shards import read_shard

STAGE = "salience"
VERSION = 2
DECODERS = 4
"""Threads that decode; with what waits there are images of two batches in memory."""


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
    ) -> SalienceJob:
        """Pin the weights and the candidates' file.

        Args:
            vocabulary: labels that may be candidates; all of the card when None.
            pinned: the weights, where they are pinned already.

        Raises:
            UsageError: the weights are missing or unfit for the settings; there is no such source of candidates, its
                file is missing, or the method has no match score to be one.
        """
        if config.candidates.source == "itm" and not method.matches:
            raise UsageError(f"{method.name} has no match score; use --candidates labels, vocabulary, clip or file")
        revision = candidates_revision(config.candidates)
        return cls(
            out=out,
            method=method,
            config=config,
            runtime=runtime.model_copy(update={"threads": runtime.threads or torch.get_num_threads()}),
            card=card,
            vocabulary=vocabulary or tuple(range(1, len(card.classes) + 1)),
            pinned=pinned or method_of(method).pin(method),
            candidates=revision,
        )

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
        return fingerprint(STAGE, VERSION, {**self.config.facts(), **own}, classes, self.pinned.revision, *newer)

    @property
    def captions(self) -> tuple[str, ...]:
        """The classes as captions of this run say them, from label 1."""
        return self.card.captions_in(self.config.words)

    @property
    def folder(self) -> StageFolder:
        """Where the maps lie."""
        return StageFolder(RunFolder(self.out), STAGE, self.fingerprint)

    def load(self) -> LoadedMethod:
        """The method with its model; the last one stays loaded in this process.

        Raises:
            UsageError: the weights do not fit the architecture.
        """
        return load_method(self.method, self.pinned, self.captions, self.runtime.device)


@dataclass(frozen=True)
class _Input:
    """A decoded sample: what method and source of candidates need, and what the record keeps."""

    sample: Sample
    height: int
    width: int
    notes: tuple[str, ...]
    for_method: Any
    for_candidates: Any


@dataclass(frozen=True)
class _Shared:
    """What all batches of a shard share."""

    job: SalienceJob
    method: LoadedMethod
    source: CandidateSource

    @classmethod
    def create(cls, job: SalienceJob, method: LoadedMethod) -> _Shared:
        context = SourceContext(job.config.candidates, job.card, job.vocabulary, job.runtime.device)
        return cls(job, method, open_candidates(context, job.candidates))

    def prepare(self, sample: Sample) -> _Input | Quarantined:
        """Decode a sample; runs on threads."""
        if sample.fault is not None:
            return Quarantined(sample.key, sample.source, "shard", sample.fault)
        try:
            image = decode_image(sample.image, self.job.config.max_pixels)
        except UnreadableImage as error:
            return Quarantined(sample.key, sample.source, STAGE, str(error))
        height, width = image.pixels.shape[:2]
        prepared = self.method.prepare(image.pixels), self.source.preprocess(image.pixels)
        return _Input(sample, height, width, (*image.notes, *sample.notes), *prepared)

    def results(self, batch: list[_Input]) -> Iterator[ClassMaps | Quarantined]:
        """Choose the candidates of a batch, and look at the images that can be labelled."""
        encoded = self.method.encode([item.for_method for item in batch])
        choices = self._choices(batch, encoded)
        seen = self.method.look(encoded, {i: choice.classes for i, choice in enumerate(choices) if choice.usable})
        for i, (item, choice) in enumerate(zip(batch, choices, strict=True)):
            if choice.usable:
                yield self._class_maps(item, choice, seen.get(i))
            else:
                yield Quarantined(item.sample.key, item.sample.source, STAGE, choice.how)

    def _choices(self, batch: list[_Input], encoded: Any) -> list[Choice]:
        images = Images([item.sample for item in batch], partial(self.method.match, encoded))
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
        self._require_finite(seen.maps.swapaxes(0, 1), "the salience", item, seen.of or choice.classes)
        if seen.match is not None:
            self._require_finite(seen.match, "the match probability", item, choice.classes)
        return ClassMaps(
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


def extract_maps(
    samples: Iterable[Sample], job: SalienceJob, progress: Progress, method: LoadedMethod | None = None
) -> Iterator[tuple[Sample, ClassMaps] | Quarantined]:
    """Process samples batch by batch; decoding runs on threads, in order.

    Args:
        method: what looks at the images, where that is not the job's method as it is configured.

    Raises:
        ShardError: maps, match probability or candidate score of an image are not finite.
    """
    if job.runtime.threads:  # holds for the calling thread, hence here
        torch.set_num_threads(job.runtime.threads)
    shared = _Shared.create(job, method or job.load())
    for prepared in _prepared_ahead(samples, shared):
        ready = [p for p in prepared if isinstance(p, _Input)]
        results = shared.results(ready) if ready else iter(())
        for item in prepared:
            if isinstance(item, Quarantined):
                yield item
                continue
            result = next(results)
            yield result if isinstance(result, Quarantined) else (item.sample, result)
        progress(len(prepared))


def _prepared_ahead(samples: Iterable[Sample], shared: _Shared) -> Iterator[list[_Input | Quarantined]]:
    """Batches of decoded samples; while one is looked at the next is being decoded."""
    remaining = iter(samples)
    with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool:

        def begin() -> list[Future[_Input | Quarantined]]:
            return [pool.submit(shared.prepare, one) for one in islice(remaining, shared.job.runtime.batch_size)]

        batch = begin()
        try:
            while batch:
                following = begin()
                yield [future.result() for future in batch]
                batch = following
        finally:  # whoever stops early does not wait for what nobody will look at
            pool.shutdown(wait=False, cancel_futures=True)


def extract_shard(job: SalienceJob, shard: ShardRef, progress: Progress = silent) -> StageResult:
    """Run the salience stage for one shard, unless it is complete.

    Raises:
        ShardError: maps, match probability or candidate score of an image are not finite.
        PnpError: the model, the captions or the run folder are at fault.
    """
    run = RunFolder(job.out)

    def work() -> StageOutput:
        tensors: dict[str, np.ndarray] = {}
        rows, quarantined = [], []
        for result in extract_maps(read_shard(run, shard), job, progress):
            if isinstance(result, Quarantined):
                quarantined.append(result)
                continue
            sample, maps = result
            tensors[sample.key] = np.ascontiguousarray(maps.maps)
            if maps.of:
                tensors[_of(sample.key)] = np.array(maps.of, dtype=np.int32)
            rows.append(
                {
                    **image_row(sample, maps),
                    "itm": None if maps.itm is None else maps.itm.tolist(),
                    "scores": list(maps.scores),
                    "chosen": maps.chosen,
                    "notes": list(maps.notes),
                }
            )
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        files = {"safetensors": save_tensors(tensors), "parquet": table_bytes(table)}
        return StageOutput(files, len(rows), quarantined)

    return job.folder.complete(shard.name, shard.sha256, work)


def _of(key: str) -> str:
    """Where the labels of an image's maps are; no image has such a key."""
    return f"{key}/of"


IMAGE_COLUMNS = [
    ("key", pa.string()),
    ("source", pa.string()),
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("classes", pa.list_(pa.int32())),
]
"""What every table of maps says of an image."""


def image_row(sample: Sample, maps: ClassMaps) -> dict[str, Any]:
    """An image as a row of `IMAGE_COLUMNS`."""
    return {
        "key": sample.key,
        "source": sample.source,
        "height": maps.height,
        "width": maps.width,
        "classes": list(maps.classes),
    }


_SCHEMA = pa.schema(
    [
        *IMAGE_COLUMNS,
        ("itm", pa.list_(pa.float32())),
        ("scores", pa.list_(pa.float32())),
        ("chosen", pa.string()),
        ("notes", pa.list_(pa.string())),
    ]
)


def read_class_maps(folder: StageFolder, shard: str) -> dict[str, ClassMaps]:
    """The stored maps of a shard, by key."""
    tensors = load_tensors(folder.read(shard, "safetensors"))
    rows = folder.read_table(shard, "parquet").to_pylist()
    return {
        row["key"]: ClassMaps(
            maps=tensors[row["key"]],
            classes=tuple(row["classes"]),
            itm=None if row["itm"] is None else np.array(row["itm"], dtype=np.float32),
            height=row["height"],
            width=row["width"],
            scores=tuple(row["scores"]),
            chosen=row["chosen"],
            notes=tuple(row["notes"]),
            of=tuple(tensors[_of(row["key"])].tolist()) if _of(row["key"]) in tensors else (),
        )
        for row in rows
    }
