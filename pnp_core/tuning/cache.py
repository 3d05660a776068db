"""Tuning cache: the maps of all (layer, head) pairs from one pass, and the pictures as CLIP sees them.

A trial of the search reads the one slice it needs; no trial runs the vision-language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from PIL import Image
from PIL.Image import Resampling
from safetensors.numpy import save as save_tensors

from pnp_core.data import Progress, Quarantined, Sample, ShardRef, StageResult, silent
from pnp_core.errors import LayerRangeError
from pnp_core.frozen import Config
from pnp_core.inputs.images import decode_image
from pnp_core.methods.pnp.backbones import Checkpoint, load_backbone
from pnp_core.methods.pnp.config import PnpConfig
from pnp_core.methods.pnp.method import Encoded, LoadedPnp
from pnp_core.methods.pnp.prompts import PromptBatch
from pnp_core.methods.pnp.salience import all_salience, check_layer_head, check_salient, useful_layers
from pnp_core.stages.maps import SalienceJob, extract_maps
from pnp_core.storage.class_maps import IMAGE_COLUMNS, image_row
from pnp_core.storage.completion import StageFolder, StageOutput
from pnp_core.storage.run_folder import RunFolder, fingerprint, table_bytes
from pnp_core.storage.shards import read_shard

if TYPE_CHECKING:
    import torch

MAPS = "tuning-maps"
IMAGES = "tuning-pictures"
VERSION = 1


@dataclass(frozen=True)
class CachedMaps:
    """A picture of the cache: its classes, and the rows of the shard's maps that are theirs."""

    key: str
    source: str
    height: int
    width: int
    classes: tuple[int, ...]
    rows: slice


class MapsJob(Config):
    """What the maps cache holds, for any shard of a run."""

    salience: SalienceJob
    """Its weights are pinned; layer, head and drop iterations of the method do not count."""
    method: PnpConfig
    checkpoint: Checkpoint
    layers: tuple[int, ...]
    """Layers to keep, all heads of each."""

    @classmethod
    def create(
        cls, salience: SalienceJob, method: PnpConfig, checkpoint: Checkpoint, layers: tuple[int, ...] | None
    ) -> MapsJob:
        """Keep some layers, or all whose salience is not zero.

        Raises:
            LayerRangeError: the model has no such layer, or its salience is zero.
        """
        for layer in layers or ():
            check_layer_head(layer, 0, checkpoint.layers, checkpoint.heads)
            check_salient(layer, checkpoint.layers, method.kind)
        useful = layers or useful_layers(checkpoint.layers, method.kind)
        if not useful:
            raise LayerRangeError("the model has one cross-attention layer, whose salience is always zero")
        return cls(salience=salience, method=method, checkpoint=checkpoint, layers=tuple(sorted(useful)))

    @property
    def fingerprint(self) -> str:
        """Names the configuration, the weights and the layers."""
        base = self.salience.fingerprint_without("layer", "head", "dropout")
        return fingerprint(MAPS, VERSION, base, self.layers)

    @property
    def folder(self) -> StageFolder:
        """Where the maps lie."""
        return StageFolder(RunFolder(self.salience.out), MAPS, self.fingerprint)

    def load(self) -> LoadedPnp:
        """The model, which looks with all heads of all layers in one pass."""
        backbone = load_backbone(self.method.backbone, self.checkpoint, self.salience.runtime.device)

        def all_heads(batch: Encoded, prompts: PromptBatch) -> tuple[torch.Tensor, torch.Tensor]:
            maps, itm = all_salience(backbone, batch.tokens, prompts, self.layers, self.method.kind)
            return maps.flatten(1, 2), itm

        kept = len(self.layers) * self.checkpoint.heads
        return LoadedPnp(self.method, backbone, self.salience.captions, all_heads, kept)


def pair_name(layer: int, head: int) -> str:
    """Name of a (layer, head) pair's tensor.

    >>> pair_name(7, 9)
    '7.9'
    """
    return f"{layer}.{head}"


def relative_to_peak(maps: np.ndarray) -> np.ndarray:
    """Maps (..., gh, gw) as half precision, each divided by its maximum.

    Raw salience spans more orders of magnitude than half precision has. Up to the label map every
    step on the maps of one pass is the same at any scale, so that nothing is lost.
    """
    peak = maps.max(axis=(-2, -1), keepdims=True)
    return np.divide(maps, peak, out=np.zeros_like(maps), where=peak > 0).astype(np.float16)


def cache_maps(job: MapsJob, shard: ShardRef, progress: Progress = silent) -> StageResult:
    """Keep the maps of one shard, unless that is complete; pictures without classes are left out.

    Raises:
        ShardError: salience, match probability or candidate score of a picture is not finite.
        PnpError: the model, the captions or the run folder are at fault.
    """
    run = RunFolder(job.salience.out)
    heads = job.checkpoint.heads

    def work() -> StageOutput:
        kept, rows, quarantined = [], [], []
        for result in extract_maps(read_shard(run, shard), job.salience, progress, job.load()):
            if isinstance(result, Quarantined):
                quarantined.append(result)
            elif result[1].classes:
                sample, maps = result
                kept.append(relative_to_peak(maps.maps))
                rows.append(image_row(sample, maps))
        pairs = [pair_name(layer, head) for layer in job.layers for head in range(heads)]
        nothing = [np.zeros((len(pairs), 0, 0, 0), np.float16)]
        tensors = {name: np.concatenate([maps[i] for maps in kept or nothing]) for i, name in enumerate(pairs)}
        table = pa.Table.from_pylist(rows, schema=pa.schema(IMAGE_COLUMNS))
        files = {"safetensors": save_tensors(tensors), "parquet": table_bytes(table)}
        return StageOutput(files, len(rows), quarantined)

    return job.folder.complete(shard.name, shard.sha256, work)


def read_images(job: MapsJob, shard: str) -> list[CachedMaps]:
    """The pictures of a shard that have maps, in the order of the maps."""
    images, start = [], 0
    for row in job.folder.read_table(shard, "parquet").to_pylist():
        end = start + len(row["classes"])
        classes = tuple(row["classes"])
        images.append(CachedMaps(row["key"], row["source"], row["height"], row["width"], classes, slice(start, end)))
        start = end
    return images


def read_maps(job: MapsJob, shard: str, layer: int, head: int) -> np.ndarray:
    """One pair's maps of a shard, (R, gh, gw) half precision with maximum 1; rows as in `read_images`."""
    return job.folder.read_tensor(shard, pair_name(layer, head))


class ImagesJob(Config):
    """The pictures of the maps cache, squashed to CLIP's input."""

    maps: MapsJob
    size: int
    """Side of CLIP's input in pixels."""

    @property
    def folder(self) -> StageFolder:
        """Where they lie."""
        name = fingerprint(IMAGES, VERSION, self.maps.fingerprint, self.size)
        return StageFolder(RunFolder(self.maps.salience.out), IMAGES, name)


def _squashed(sample: Sample, job: ImagesJob) -> np.ndarray:
    image = decode_image(sample.image, job.maps.salience.config.max_pixels).pixels
    return np.asarray(Image.fromarray(image).resize((job.size, job.size), Resampling.BICUBIC))


def cache_images(job: ImagesJob, shard: ShardRef, maps: StageResult) -> StageResult:
    """Keep the pixels of one shard's pictures that have maps, unless that is complete.

    Args:
        maps: result of `cache_maps` for the same shard.
    """
    run = RunFolder(job.maps.salience.out)

    def work() -> StageOutput:
        wanted = {image.key for image in read_images(job.maps, shard.name)}
        pixels = [_squashed(sample, job) for sample in read_shard(run, shard) if sample.key in wanted]
        stacked = np.stack(pixels) if pixels else np.zeros((0, job.size, job.size, 3), np.uint8)
        return StageOutput({"safetensors": save_tensors({"pixels": stacked})}, len(pixels))

    return job.folder.complete(shard.name, maps.record_sha256, work)


def read_pixels(job: ImagesJob, shard: str) -> np.ndarray:
    """The pictures of a shard, (n, size, size, 3) uint8, in the order of `read_images`."""
    return job.folder.read_tensor(shard, "pixels")
