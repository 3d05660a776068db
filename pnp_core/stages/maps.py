"""Salience stage: the pictures of a shard to salience maps per class and drop iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from PIL.Image import Resampling
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from pnp_core.candidates.base import CandidateSource, Choice, choose
from pnp_core.candidates.sources import candidates_revision, open_candidates
from pnp_core.data import ClassMaps, Progress, Quarantined, Sample, ShardRef, StageResult, silent
from pnp_core.errors import UnreadableImage
from pnp_core.finite import require_finite
from pnp_core.frozen import Config
from pnp_core.inputs.cards import DatasetCard
from pnp_core.inputs.images import decode_image
from pnp_core.methods.pnp.backbones import Backbone, Checkpoint, backbone_card, load_backbone, locate_checkpoint
from pnp_core.methods.pnp.backbones.base import PIXEL_MEAN, PIXEL_STD
from pnp_core.methods.pnp.dropout import salience_dropout
from pnp_core.methods.pnp.prompts import PromptBatch, Prompts, build_prompts, stack_prompts
from pnp_core.methods.pnp.salience import check_layer_head, check_salient
from pnp_core.stages.config import RuntimeConfig, SalienceConfig
from pnp_core.storage.completion import StageFolder, StageOutput
from pnp_core.storage.run_folder import RunFolder, fingerprint, table_bytes
from pnp_core.storage.shards import read_shard

STAGE = "salience"
VERSION = 2
_MEAN, _STD = np.array(PIXEL_MEAN, dtype=np.float32), np.array(PIXEL_STD, dtype=np.float32)


class SalienceJob(Config):
    """What the salience stage does, for any shard of a run."""

    out: str
    config: SalienceConfig
    runtime: RuntimeConfig
    card: DatasetCard
    """The classes, and how captions say them."""
    vocabulary: tuple[int, ...]
    """Labels that may be candidates."""
    checkpoint: Checkpoint
    """The weights, pinned."""
    candidates: str | None = None
    """Revision of the candidate source's own file or weights."""

    @classmethod
    def create(
        cls,
        out: str,
        config: SalienceConfig,
        runtime: RuntimeConfig,
        card: DatasetCard,
        vocabulary: tuple[int, ...] | None = None,
        any_layer: bool = False,
    ) -> SalienceJob:
        """Pin the weights and the candidates' file.

        Args:
            vocabulary: labels that may be candidates; all of the card when None.
            any_layer: layer and head are not settled yet, and not checked.

        Raises:
            CheckpointError: the weights are missing or unfit.
            LayerRangeError: the model has no such layer or head, or its salience is zero.
            UsageError: there is no such source of candidates, or its file is missing.
        """
        revision = candidates_revision(config.candidates)
        checkpoint = locate_checkpoint(config.backbone)
        if not any_layer:
            check_layer_head(config.layer, config.head, checkpoint.layers, checkpoint.heads)
            check_salient(config.layer, checkpoint.layers, config.kind)
        return cls(
            out=out,
            config=config,
            runtime=runtime.model_copy(update={"threads": runtime.threads or torch.get_num_threads()}),
            card=card,
            vocabulary=vocabulary or tuple(range(1, len(card.classes) + 1)),
            checkpoint=checkpoint,
            candidates=revision,
        )

    @property
    def fingerprint(self) -> str:
        """Names the configuration and the weights, not where they lie nor what runs them."""
        return self.fingerprint_without()

    def fingerprint_without(self, *parts: str) -> str:
        """The fingerprint of what does not depend on some parts of the configuration."""
        # Revisions name weights and files; of CLIP only what is in use counts.
        clip: Any = {"model", "pretrained"} if self.config.candidates.source == "clip" else True
        exclude: Any = {"backbone": {"checkpoint", "revision", "heads"}, "candidates": {"file": True, "clip": clip}}
        config = self.config.model_dump(exclude=exclude | dict.fromkeys(("words", *parts), True))
        classes: list[Any] = [self.card.captions, self.vocabulary, self.candidates]
        # A file of candidates may use any spelling or number of a class.
        spellings = [c.model_dump(exclude={"authors"}) for c in self.card.classes]
        classes += spellings if self.config.candidates.source == "file" else []
        # What is newer than the first runs enters only where it is not what those had.
        newer: list[Any] = [self.captions] if self.captions != self.card.captions else []
        version = backbone_card(self.config.backbone.name).version
        newer += [{"backbone": version}] if version > 1 else []
        return fingerprint(STAGE, VERSION, config, classes, self.checkpoint.revision, *newer)

    @property
    def captions(self) -> tuple[str, ...]:
        """The classes as captions of this run say them, from label 1."""
        return self.card.captions_in(self.config.words)

    @property
    def folder(self) -> StageFolder:
        """Where the maps lie."""
        return StageFolder(RunFolder(self.out), STAGE, self.fingerprint)

    def backbone(self) -> Backbone:
        """The loaded model; the last one stays loaded in this process.

        Raises:
            CheckpointError: the weights do not fit the architecture.
        """
        config: Any = self.config.backbone  # frozen, hence hashable, which type checkers do not see
        return load_backbone(config, self.checkpoint, self.runtime.device)


def model_pixels(picture: np.ndarray, sides: tuple[int, int]) -> torch.Tensor:
    """Squash a picture (H, W, 3) uint8 to normalised model pixels (3, *sides), bicubic."""
    height, width = sides
    small = Image.fromarray(picture).resize((width, height), Resampling.BICUBIC)
    values = (np.asarray(small, dtype=np.float32) / 255 - _MEAN) / _STD
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


@dataclass(frozen=True)
class _Input:
    """A decoded sample: what the model needs, and what the record keeps."""

    sample: Sample
    pixels: torch.Tensor
    height: int
    width: int
    notes: tuple[str, ...]
    for_candidates: Any


def _prepare(sample: Sample, job: SalienceJob, source: CandidateSource) -> _Input | Quarantined:
    if sample.fault is not None:
        return Quarantined(sample.key, sample.source, "shard", sample.fault)
    try:
        picture = decode_image(sample.image, job.config.max_pixels)
    except UnreadableImage as error:
        return Quarantined(sample.key, sample.source, STAGE, str(error))
    pixels = model_pixels(picture.pixels, job.config.backbone.sides)
    height, width = picture.pixels.shape[:2]
    return _Input(sample, pixels, height, width, (*picture.notes, *sample.notes), source.preprocess(picture.pixels))


Look = Callable[[Backbone, torch.Tensor, PromptBatch, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(backbone, pixels (B, 3, S, S), prompts, image tokens (B, 1 + P, D)) to maps (B, K, C, P) and match
probabilities (B, C)."""


def look_with_dropout(job: SalienceJob) -> Look:
    """One map per drop iteration, of the configured layer and head."""
    config = job.config

    def look(
        backbone: Backbone, pixels: torch.Tensor, prompts: PromptBatch, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        layer, head, kind = config.layer, config.head, config.kind
        found = salience_dropout(backbone, pixels, prompts, config.dropout, layer, head, kind, tokens)
        return found.maps, found.itm

    return look


@dataclass(frozen=True)
class _Extractor:
    """What all batches of a shard share."""

    job: SalienceJob
    look: Look
    backbone: Backbone
    source: CandidateSource
    prompts_of: Callable[[tuple[int, ...]], Prompts]

    @classmethod
    def create(cls, job: SalienceJob, look: Look) -> _Extractor:
        backbone = job.backbone()
        config: Any = job.config  # frozen, hence hashable, which type checkers do not see
        source = open_candidates(
            config.candidates, config.caption, job.card, config.words, job.vocabulary, backbone, job.candidates
        )

        @lru_cache(maxsize=1024)
        def prompts_of(classes: tuple[int, ...]) -> Prompts:
            return build_prompts([job.captions[c - 1] for c in classes], job.config.caption, backbone)

        return cls(job, look, backbone, source, prompts_of)

    def results(self, batch: list[_Input]) -> Iterator[ClassMaps | Quarantined]:
        """Choose the candidates of a batch, and look at the pictures that have some."""
        pixels = torch.stack([item.pixels for item in batch]).to(self.backbone.device)
        tokens = self.backbone.encode_image(pixels)
        proposals = self.source.propose([i.sample for i in batch], [i.for_candidates for i in batch], tokens)
        for item, proposal in zip(batch, proposals, strict=True):  # before one that is not finite is no match
            if proposal.scores:
                self._require_finite(np.array(proposal.scores), "the candidate score", item, proposal.classes)
        config, least = self.job.config.candidates, self.source.default_min_score
        choices = [choose(proposal, config, least, self.job.vocabulary) for proposal in proposals]
        ready = [i for i, choice in enumerate(choices) if choice.classes]
        maps = iter(self._maps([batch[i] for i in ready], [choices[i] for i in ready], pixels[ready], tokens[ready]))
        for item, choice in zip(batch, choices, strict=True):
            if choice.classes:
                yield next(maps)
            elif choice.usable:
                yield self._nothing(item, choice)
            else:
                yield Quarantined(item.sample.key, item.sample.source, STAGE, choice.how)

    def _require_finite(self, values: np.ndarray, what: str, item: _Input, classes: tuple[int, ...]) -> None:
        """Refuse what a model made of a picture, a part for each class, where it is NaN or infinity."""
        names = [self.job.card.names[label - 1] for label in classes]
        how = f"the model's numbers overflow (its image encoder runs in {self.job.config.backbone.dtype})"
        require_finite(values, what, item.sample.key, names, how)

    def _nothing(self, item: _Input, choice: Choice) -> ClassMaps:
        """Salience of a picture that holds none of the classes."""
        maps = np.zeros((self.job.config.dropout.iterations, 0, *self.backbone.grid), dtype=np.float32)
        itm = np.zeros(0, dtype=np.float32)
        return ClassMaps(maps, (), itm, item.height, item.width, (), choice.how, item.notes)

    def _maps(
        self, batch: list[_Input], choices: list[Choice], pixels: torch.Tensor, tokens: torch.Tensor
    ) -> Iterator[ClassMaps]:
        if not batch:
            return
        prompts = stack_prompts([self.prompts_of(choice.classes) for choice in choices]).to(self.backbone.device)
        found, matches = self.look(self.backbone, pixels, prompts, tokens)
        maps = found.unflatten(-1, self.backbone.grid).cpu().numpy()
        itm = matches.cpu().numpy()
        for i, (item, choice) in enumerate(zip(batch, choices, strict=True)):
            own, matched = maps[i, :, : len(choice.classes)], itm[i, : len(choice.classes)]
            self._require_finite(own.swapaxes(0, 1), "the salience", item, choice.classes)
            self._require_finite(matched, "the match probability", item, choice.classes)
            yield ClassMaps(
                maps=own,
                classes=choice.classes,
                itm=matched,
                height=item.height,
                width=item.width,
                scores=choice.scores,
                chosen=choice.how,
                notes=item.notes,
            )


def look_at(
    samples: Iterable[Sample], job: SalienceJob, look: Look, progress: Progress
) -> Iterator[tuple[Sample, ClassMaps] | Quarantined]:
    """Process samples batch by batch; decoding runs on threads, in order.

    Raises:
        ShardError: salience, match probability or candidate score of a picture is not finite.
    """
    if job.runtime.threads:  # holds for the calling thread, hence here
        torch.set_num_threads(job.runtime.threads)
    extractor = _Extractor.create(job, look)
    with ThreadPoolExecutor(4, thread_name_prefix="decode") as pool:
        remaining = iter(samples)
        while group := list(islice(remaining, job.runtime.batch_size)):
            prepared = list(pool.map(lambda sample: _prepare(sample, job, extractor.source), group))
            ready = [p for p in prepared if isinstance(p, _Input)]
            results = extractor.results(ready) if ready else iter(())
            for item in prepared:
                if isinstance(item, Quarantined):
                    yield item
                    continue
                result = next(results)
                yield result if isinstance(result, Quarantined) else (item.sample, result)
            progress(len(group))


def extract_shard(job: SalienceJob, shard: ShardRef, progress: Progress = silent) -> StageResult:
    """Run the salience stage for one shard, unless it is complete.

    Raises:
        ShardError: salience, match probability or candidate score of a picture is not finite.
        PnpError: the model, the captions or the run folder are at fault.
    """
    run = RunFolder(job.out)

    def work() -> StageOutput:
        tensors: dict[str, np.ndarray] = {}
        rows, quarantined = [], []
        for result in look_at(read_shard(run, shard), job, look_with_dropout(job), progress):
            if isinstance(result, Quarantined):
                quarantined.append(result)
                continue
            sample, maps = result
            tensors[sample.key] = np.ascontiguousarray(maps.maps)
            rows.append(
                {
                    **picture_row(sample, maps),
                    "itm": maps.itm.tolist(),
                    "scores": list(maps.scores),
                    "chosen": maps.chosen,
                    "notes": list(maps.notes),
                }
            )
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        files = {"safetensors": save_tensors(tensors), "parquet": table_bytes(table)}
        return StageOutput(files, len(rows), quarantined)

    return job.folder.complete(shard.name, shard.sha256, work)


PICTURE_COLUMNS = [
    ("key", pa.string()),
    ("source", pa.string()),
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("classes", pa.list_(pa.int32())),
]
"""What every table of maps says of a picture."""


def picture_row(sample: Sample, maps: ClassMaps) -> dict[str, Any]:
    """A picture as a row of `PICTURE_COLUMNS`."""
    return {
        "key": sample.key,
        "source": sample.source,
        "height": maps.height,
        "width": maps.width,
        "classes": list(maps.classes),
    }


_SCHEMA = pa.schema(
    [
        *PICTURE_COLUMNS,
        ("itm", pa.list_(pa.float32())),
        ("scores", pa.list_(pa.float32())),
        ("chosen", pa.string()),
        ("notes", pa.list_(pa.string())),
    ]
)


def read_salience(folder: StageFolder, shard: str) -> dict[str, ClassMaps]:
    """The stored maps of a shard, by key."""
    tensors = load_tensors(folder.read(shard, "safetensors"))
    rows = folder.read_table(shard, "parquet").to_pylist()
    return {
        row["key"]: ClassMaps(
            maps=tensors[row["key"]],
            classes=tuple(row["classes"]),
            itm=np.array(row["itm"], dtype=np.float32),
            height=row["height"],
            width=row["width"],
            scores=tuple(row["scores"]),
            chosen=row["chosen"],
            notes=tuple(row["notes"]),
        )
        for row in rows
    }
