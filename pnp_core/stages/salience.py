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

from pnp_core.backbones import Backbone, Checkpoint, load_backbone, locate_checkpoint
from pnp_core.config import Config, RuntimeConfig, SalienceConfig
from pnp_core.dropout import salience_dropout
from pnp_core.errors import LayerRangeError, UnreadableImage
from pnp_core.images import decode_image
from pnp_core.prompts import Prompts, build_prompts, stack_prompts
from pnp_core.records import Progress, Quarantined, SalienceMaps, Sample, ShardRef, StageResult, silent
from pnp_core.salience import check_layer_head
from pnp_core.shards import read_shard
from pnp_core.store import RunFolder, StageFolder, StageOutput, fingerprint, table_bytes

STAGE = "salience"
VERSION = 1
# CLIP's normalisation, which BLIP was trained with.
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)


class SalienceJob(Config):
    """What the salience stage does, for any shard of a run."""

    out: str
    config: SalienceConfig
    runtime: RuntimeConfig
    class_names: tuple[str, ...]
    """Names of the class ids 1, 2 ..."""
    checkpoint: Checkpoint
    """The weights, pinned."""

    @classmethod
    def create(
        cls, out: str, config: SalienceConfig, runtime: RuntimeConfig, class_names: tuple[str, ...]
    ) -> SalienceJob:
        """Pin the weights.

        Raises:
            CheckpointError: the weights are missing or unfit.
            LayerRangeError: the model has no such layer or head, or its salience is zero.
        """
        checkpoint = locate_checkpoint(config.backbone)
        check_layer_head(config.layer, config.head, checkpoint.layers, checkpoint.heads)
        if config.kind == "gradcam" and config.layer == checkpoint.layers - 1:
            raise LayerRangeError(
                f"layer {config.layer} is the last one: its salience is zero, because the match score reads no "
                f"class token after it; use layers 0 to {checkpoint.layers - 2}"
            )
        return cls(
            out=out,
            config=config,
            runtime=runtime,
            class_names=class_names,
            checkpoint=checkpoint,
        )

    @property
    def fingerprint(self) -> str:
        """Names the configuration and the weights, not where they lie nor what runs them."""
        config = self.config.model_dump(exclude={"backbone": {"checkpoint", "revision", "heads"}})
        return fingerprint(STAGE, VERSION, config, self.class_names, self.checkpoint.revision)

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


def model_pixels(picture: np.ndarray, size: int) -> torch.Tensor:
    """Squash a picture (H, W, 3) uint8 to normalised model pixels (3, size, size), bicubic."""
    small = Image.fromarray(picture).resize((size, size), Resampling.BICUBIC)
    values = (np.asarray(small, dtype=np.float32) / 255 - _MEAN) / _STD
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


@dataclass(frozen=True)
class _Input:
    """A decoded sample: what the model needs, and what the record keeps."""

    sample: Sample
    pixels: torch.Tensor
    height: int
    width: int
    classes: tuple[int, ...]


def _prepare(sample: Sample, job: SalienceJob) -> _Input | Quarantined:
    if sample.fault is not None:
        return Quarantined(sample.key, sample.source, "shard", sample.fault)
    everything = tuple(range(1, len(job.class_names) + 1))
    classes = everything if job.config.candidates == "vocabulary" else sample.classes
    if not classes:
        return Quarantined(sample.key, sample.source, STAGE, "no candidate classes: no image-level labels")
    try:
        picture = decode_image(sample.image, job.config.max_pixels)
    except UnreadableImage as error:
        return Quarantined(sample.key, sample.source, STAGE, str(error))
    pixels = model_pixels(picture, job.config.backbone.image_size)
    return _Input(sample, pixels, picture.shape[0], picture.shape[1], classes)


def _extract(
    batch: list[_Input], job: SalienceJob, backbone: Backbone, prompts_of: Callable[[tuple[int, ...]], Prompts]
) -> Iterator[SalienceMaps]:
    prompts = stack_prompts([prompts_of(item.classes) for item in batch])
    found = salience_dropout(
        backbone,
        torch.stack([item.pixels for item in batch]).to(backbone.device),
        prompts.to(backbone.device),
        job.config.dropout,
        job.config.layer,
        job.config.head,
        job.config.kind,
    )
    maps = found.maps.unflatten(-1, backbone.grid).cpu().numpy()
    itm = found.itm.cpu().numpy()
    for i, item in enumerate(batch):
        number = len(item.classes)
        yield SalienceMaps(maps[i, :, :number], item.classes, itm[i, :number], item.height, item.width)


def _results(
    samples: Iterable[Sample], job: SalienceJob, backbone: Backbone, progress: Progress
) -> Iterator[tuple[Sample, SalienceMaps] | Quarantined]:
    """Process samples batch by batch; decoding runs on threads, in order."""

    @lru_cache(maxsize=1024)
    def prompts_of(classes: tuple[int, ...]) -> Prompts:
        return build_prompts([job.class_names[c - 1] for c in classes], job.config.caption, backbone)

    with ThreadPoolExecutor(4, thread_name_prefix="decode") as pool:
        remaining = iter(samples)
        while group := list(islice(remaining, job.runtime.batch_size)):
            prepared = list(pool.map(lambda sample: _prepare(sample, job), group))
            ready = [p for p in prepared if isinstance(p, _Input)]
            maps = _extract(ready, job, backbone, prompts_of) if ready else iter(())
            for item in prepared:
                yield item if isinstance(item, Quarantined) else (item.sample, next(maps))
            progress(len(group))


def extract_shard(job: SalienceJob, shard: ShardRef, progress: Progress = silent) -> StageResult:
    """Run the salience stage for one shard, unless it is complete.

    Raises:
        PnpError: the model, the captions or the run folder are at fault; pictures never are.
    """
    run = RunFolder(job.out)

    def work() -> StageOutput:
        tensors: dict[str, np.ndarray] = {}
        rows, quarantined = [], []
        for result in _results(read_shard(run, shard), job, job.backbone(), progress):
            if isinstance(result, Quarantined):
                quarantined.append(result)
                continue
            sample, maps = result
            tensors[sample.key] = np.ascontiguousarray(maps.maps)
            rows.append(
                {
                    "key": sample.key,
                    "source": sample.source,
                    "height": maps.height,
                    "width": maps.width,
                    "classes": list(maps.classes),
                    "itm": maps.itm.tolist(),
                }
            )
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        files = {"safetensors": save_tensors(tensors), "parquet": table_bytes(table)}
        return StageOutput(files, len(rows), quarantined)

    return job.folder.complete(shard.name, shard.sha256, work)


_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("classes", pa.list_(pa.int32())),
        ("itm", pa.list_(pa.float32())),
    ]
)


def read_salience(folder: StageFolder, shard: str) -> dict[str, SalienceMaps]:
    """The stored maps of a shard, by key."""
    tensors = load_tensors(folder.run.read(folder.file(shard, "safetensors")))
    rows = folder.run.read_table(folder.file(shard, "parquet")).to_pylist()
    return {
        row["key"]: SalienceMaps(
            maps=tensors[row["key"]],
            classes=tuple(row["classes"]),
            itm=np.array(row["itm"], dtype=np.float32),
            height=row["height"],
            width=row["width"],
        )
        for row in rows
    }
