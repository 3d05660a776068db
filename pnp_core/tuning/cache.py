"""Tuning cache: PnP-OVSS's maps of all (layer, head) pairs from one pass, and the pictures as CLIP sees them.

A trial of the search reads the one slice it needs; no trial runs the vision-language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float
from PIL import Image
from PIL.Image import Resampling
from safetensors.numpy import save as save_tensors

from pnp_core.data import ClassMaps, Progress, Quarantined, Sample, ShardRef, StageResult, silent
from pnp_core.errors import LayerRangeError
from pnp_core.finite import require_finite
from pnp_core.frozen import Config
from pnp_core.inputs.images import decode_image
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.label_map import Decide
from pnp_core.methods.pnp.backbones import Checkpoint, load_backbone
from pnp_core.methods.pnp.channels import decide, sum_iterations
from pnp_core.methods.pnp.config import PnpConfig
from pnp_core.methods.pnp.layers import check_layer_head, check_salient, useful_layers
from pnp_core.methods.pnp.loaded import Encoded, LoadedPnp
from pnp_core.methods.pnp.prompts import PromptBatch
from pnp_core.methods.pnp.salience import all_salience
from pnp_core.stages.config import RuntimeConfig
from pnp_core.stages.maps import SalienceJob, extract_maps, extract_shard
from pnp_core.storage.class_maps import IMAGE_COLUMNS, image_row, read_class_maps
from pnp_core.storage.completion import StageFolder, StageOutput
from pnp_core.storage.run_folder import RunFolder, fingerprint, table_bytes
from pnp_core.storage.shards import read_shard
from pnp_core.tuning.config import SpaceConfig, TuneConfig
from pnp_core.tuning.reward import regions
from pnp_core.tuning.search import Setting, Space
from pnp_core.tuning.subject import CachedMaps, Opened, Subject

if TYPE_CHECKING:
    import torch

MAPS = "tuning-maps"
IMAGES = "tuning-pictures"
VERSION = 1


class MapsJob(Subject):
    """What the maps cache holds, for any shard of a run.

    Layer, head and drop iterations of the salience stage's method do not count.
    """

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

    @property
    def reward_facts(self) -> list[Any]:
        """How several passes are made and added up; maps of one do not depend on it."""
        return [self.method.sum, self.method.dropout.model_dump(exclude={"iterations"})]

    @property
    def compare_facts(self) -> list[Any]:
        """The drop iterations."""
        return [self.method.dropout.model_dump()]

    def keep(self, shard: ShardRef, progress: Progress = silent) -> StageResult:
        """See `cache_maps`."""
        return cache_maps(self, shard, progress)

    def space(self, wanted: SpaceConfig) -> Space:
        """The layers that are kept, and heads of the model.

        Raises:
            LayerRangeError: the model has no such head.
        """
        heads = self.checkpoint.heads
        for head in wanted.heads or ():
            check_layer_head(0, head, self.checkpoint.layers, heads)
        chosen = wanted.heads or tuple(range(heads))
        return Space(self.layers, chosen, wanted.iterations, wanted.thresholds, wanted.blurs)

    def open(
        self, settings: Sequence[Setting], shard: ShardRef, images: list[CachedMaps], runtime: RuntimeConfig
    ) -> OpenedPairs:
        """The slices of the shard's maps that some settings need."""
        wanted = {_slice(setting): setting for setting in settings}
        return OpenedPairs(self, {s: setting_maps(self, one, shard, images, runtime) for s, one in wanted.items()})

    def entire(self, config: TuneConfig, setting: Setting) -> Setting:
        """A setting with the drop iterations that the method will have."""
        if config.space.iterations != (1,):
            return setting
        return replace(setting, iterations=self.method.dropout.iterations)

    def configured(self, config: TuneConfig, like: Setting) -> Setting | None:
        """Layer, head, threshold and blur as configured, of as many drop iterations as the search saw."""
        method, masks = self.method, config.masks
        try:
            check_layer_head(method.layer, method.head, self.checkpoint.layers, self.checkpoint.heads)
            check_salient(method.layer, self.checkpoint.layers, method.kind)
        except LayerRangeError:
            return None
        return Setting(method.layer, method.head, like.iterations, masks.threshold, masks.blur)

    def decisions(
        self,
        setting: Setting,
        shard: ShardRef,
        samples: Sequence[Sample],
        masks: MaskConfig,
        runtime: RuntimeConfig,
    ) -> dict[str, tuple[ClassMaps, Decide]]:
        """Of the maps that are kept; where none are of a setting, the model looks at these pictures alone."""
        single = job_of(self, setting, runtime)
        if setting.layer in self.layers and (setting.iterations == 1 or single.folder.has_results):
            return super().decisions(setting, shard, samples, masks, runtime)
        made = [one for one in extract_maps(samples, single, silent) if not isinstance(one, Quarantined)]
        decision = partial(decide, self.method, _cut(masks, setting))
        return {sample.key: (maps, decision) for sample, maps in made}

    def chosen(self, config: TuneConfig, setting: Setting) -> dict[str, dict[str, Any]]:
        """Layer, head, threshold and blur, and what the maps depend on."""
        dropout = self.method.dropout.model_dump()
        if config.space.iterations != (1,):
            dropout["iterations"] = setting.iterations
        method = self.method.with_revision(self.checkpoint)
        own = {
            "name": method.name,
            "backbone": method.backbone.model_dump(),
            "caption": method.caption.model_dump(),
            "kind": method.kind,
            "layer": setting.layer,
            "head": setting.head,
            "dropout": dropout,
            "sum": method.sum,
        }
        return {"method": own, "masks": {"threshold": setting.threshold, "blur": setting.blur}}


def _cut(masks: MaskConfig, setting: Setting) -> MaskConfig:
    return masks.model_copy(update={"threshold": setting.threshold, "blur": setting.blur})


def _slice(setting: Setting) -> tuple[int, int, int]:
    return setting.layer, setting.head, setting.iterations


@dataclass(frozen=True)
class OpenedPairs(Opened[Setting]):
    """Summed class maps (R, gh, gw) of a shard, by layer, head and iterations."""

    job: MapsJob
    maps: dict[tuple[int, int, int], Float[np.ndarray, "R gh gw"]]

    def regions(self, setting: Setting, images: Sequence[CachedMaps], side: int) -> Bool[np.ndarray, "R side side"]:
        """Each map cut at the threshold; see `pnp_core.tuning.reward.regions`."""
        rows = slice(images[0].rows.start, images[-1].rows.stop)
        return regions(self.maps[_slice(setting)][rows], setting.threshold, setting.blur, side)

    def decision(self, setting: Setting, image: CachedMaps, masks: MaskConfig) -> tuple[ClassMaps, Decide]:
        """The picture's maps, whose iterations are summed already."""
        summed = self.job.method.model_copy(update={"sum": "plain", "passes": None})
        own = _cut(masks, setting)
        maps = self.maps[_slice(setting)][image.rows]
        return ClassMaps(maps[None], image.classes, None, image.height, image.width), partial(decide, summed, own)


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


def read_images(job: Subject, shard: str) -> list[CachedMaps]:
    """The pictures of a shard that have maps, in the order of the maps."""
    return job.images(shard)


def read_maps(job: MapsJob, shard: str, layer: int, head: int) -> np.ndarray:
    """One pair's maps of a shard, (R, gh, gw) half precision with maximum 1; rows as in `read_images`."""
    return job.folder.read_tensor(shard, pair_name(layer, head))


def job_of(job: MapsJob, setting: Setting, runtime: RuntimeConfig | None = None) -> SalienceJob:
    """The salience stage's job for a setting, drop iterations included."""
    dropout = job.method.dropout.model_copy(update={"iterations": setting.iterations})
    chosen = {"layer": setting.layer, "head": setting.head, "dropout": dropout}
    own = {"method": job.method.model_copy(update=chosen), "runtime": runtime or job.salience.runtime}
    return job.salience.model_copy(update=own)


def setting_maps(
    job: MapsJob, setting: Setting, shard: ShardRef, images: list[CachedMaps], runtime: RuntimeConfig
) -> np.ndarray:
    """Summed class maps (R, gh, gw) of a shard for a setting's layer, head and drop iterations.

    One iteration comes from the cache. More are computed once by the salience stage, which keeps them
    as it always does.

    Raises:
        ShardError: maps of a picture are not finite.
    """
    if setting.iterations == 1:
        return read_maps(job, shard.name, setting.layer, setting.head).astype(np.float32)
    single = job_of(job, setting, runtime)
    extract_shard(single, shard)
    stored = read_class_maps(single.folder, shard.name)
    summed = [sum_iterations(stored[image.key].maps, job.method.sum) for image in images]
    for image, maps in zip(images, summed, strict=True):  # the sum may overflow
        names = [job.salience.card.names[label - 1] for label in image.classes]
        require_finite(maps, "the salience summed over drop iterations", image.key, names, "it overflows")
    return np.concatenate(summed) if summed else np.zeros((0, 1, 1), np.float32)


class ImagesJob(Config):
    """The pictures of the maps cache, squashed to CLIP's input."""

    maps: Subject
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
        maps: result of `Subject.keep` for the same shard.
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
