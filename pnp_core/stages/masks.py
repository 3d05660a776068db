"""Masks stage: stored salience to label maps, one Parquet row per picture; and their PNG export."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from jaxtyping import UInt
from threadpoolctl import ThreadpoolController

from pnp_core.data import ClassMaps, Progress, Sample, ShardRef, StageResult, label_type, silent
from pnp_core.finite import require_finite
from pnp_core.frozen import Config
from pnp_core.inputs.images import decode_image, encode_grey, encode_label_map, palette_of
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.label_map import Decide, LabelMap, Map, Scores, make_label_maps
from pnp_core.masks.refine import ON_GPU, Refiner, open_refiner
from pnp_core.methods import AnyMethod, Pinned, method_of
from pnp_core.stages.config import RuntimeConfig
from pnp_core.stages.fitting import batch_size, fitting
from pnp_core.storage.class_maps import STAGE as SALIENCE
from pnp_core.storage.class_maps import read_class_maps
from pnp_core.storage.completion import StageFolder, StageOutput
from pnp_core.storage.finished import read_masks
from pnp_core.storage.run_folder import RunFolder, fingerprint, table_bytes
from pnp_core.storage.shards import read_shard

STAGE = "masks"
PNG = "png"
VERSION = 3

_CLASS = pa.struct(
    [
        ("id", pa.int32()),
        ("name", pa.string()),
        ("pixels", pa.int64()),
        ("salience", pa.float32()),
        ("itm", pa.float32()),
        ("score", pa.float32()),
    ]
)
# How Hugging Face `datasets` stores pictures; with the feature metadata below it shows them.
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_FEATURES = {
    "key": {"dtype": "string", "_type": "Value"},
    "source": {"dtype": "string", "_type": "Value"},
    "height": {"dtype": "int32", "_type": "Value"},
    "width": {"dtype": "int32", "_type": "Value"},
    "mask": {"_type": "Image"},
    "classes": {
        "_type": "List",
        "feature": {
            "id": {"dtype": "int32", "_type": "Value"},
            "name": {"dtype": "string", "_type": "Value"},
            "pixels": {"dtype": "int64", "_type": "Value"},
            "salience": {"dtype": "float32", "_type": "Value"},
            "itm": {"dtype": "float32", "_type": "Value"},
            "score": {"dtype": "float32", "_type": "Value"},
        },
    },
    "chosen": {"dtype": "string", "_type": "Value"},
    "notes": {"_type": "List", "feature": {"dtype": "string", "_type": "Value"}},
    "confidence": {"_type": "Image"},
    "mean_confidence": {"dtype": "float32", "_type": "Value"},
    "model": {"dtype": "string", "_type": "Value"},
    "fingerprint": {"dtype": "string", "_type": "Value"},
}
MASK_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("mask", _IMAGE),
        ("classes", pa.list_(_CLASS)),
        ("chosen", pa.string()),
        ("notes", pa.list_(pa.string())),
        ("confidence", _IMAGE),
        ("mean_confidence", pa.float32()),
        ("model", pa.string()),
        ("fingerprint", pa.string()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
"""One row per picture: `mask.bytes` is a palette PNG (of over 254 classes, or ids, a grey one of 16 bits),
`confidence.bytes` a grey PNG or null, `mean_confidence` the mean over the pixels of the winning label's probability.
`chosen` says how the candidate classes were chosen, `classes.score` what their source gave them; `notes` what was done
to the picture to read it."""


WIDE = {"mask": json.dumps({"bits": 16, "background": 0, "void": 65535})}
"""What the metadata of a table of 16-bit masks say beside that of others."""


class MaskJob(Config):
    """What the masks stage does, for any shard of a run."""

    out: str
    method: AnyMethod
    config: MaskConfig
    """With `background` resolved."""
    runtime: RuntimeConfig
    max_pixels: int
    class_names: tuple[str, ...]
    """Names of the labels 1, 2 ..."""
    ids: tuple[int, ...] | None = None
    """What these labels become in masks, 0 of those that are queries for background; the labels themselves when None.

    Up to the masks a label is the place of a class among the names; in masks, and all that is made of them, its id."""
    palette: tuple[str, ...] | None = None
    """Colours #rrggbb of the labels 0, 1 ...; the Pascal VOC colour map (by their ids) when None."""
    model: str
    """The weights, for people who read the rows."""
    salience_fingerprint: str
    pinned: Pinned | None = None
    """The method's weights, for methods whose scores depend on what is in them."""

    @property
    def fingerprint(self) -> str:
        """Names the configuration and the salience it starts from."""
        settings = {**self.config.facts(), **self.method.mask_facts()}
        newer = [{"ids": self.ids}] if self.ids else []
        classes = [self.class_names, self.palette, *newer]
        return fingerprint(STAGE, VERSION, settings, classes, self.salience_fingerprint)

    @property
    def wants_gpu(self) -> bool:
        """Whether it is worth a GPU."""
        return self.config.crf.name in ON_GPU

    @property
    def decide(self) -> Decide:
        """Maps to scores of ids, by the method."""
        method = method_of(self.method)
        made = method.decision(self.method, self.pinned) if self.pinned else partial(method.decide, self.method)
        decide = partial(made, self.config)
        return partial(_of_ids, decide, self.values) if self.ids else decide

    @property
    def threads(self) -> int:
        """As many as the run says, or as torch takes by itself."""
        from pnp_core.devices import default_threads  # imports torch, which a shard that is done does not need

        return self.runtime.threads or default_threads()

    def open_refiner(self) -> Refiner:
        """What refines scores, on the device of the run."""
        return open_refiner(self.config.crf, self.runtime.device, self.threads)

    @cached_property
    def values(self) -> tuple[int, ...]:
        """What the labels 0, 1 ... are in masks."""
        return (0, *(self.ids or range(1, len(self.class_names) + 1)))

    @cached_property
    def named(self) -> dict[int, str]:
        """The names of the values that masks hold, background first."""
        names = zip(self.values, ("background", *self.class_names), strict=True)
        return {value: name for place, (value, name) in enumerate(names) if value or not place}

    @property
    def colours(self) -> np.ndarray:
        """Colours of the values in masks, (256 or 65536, 3) uint8."""
        if self.ids is None:
            return palette_of(self.palette or (), self.label_type)
        colours = palette_of((), self.label_type)
        for value, colour in zip(self.ids, (self.palette or ())[1:], strict=False):
            if value:
                colours[value] = list(bytes.fromhex(colour[1:]))
        return colours

    @property
    def colours_of_labels(self) -> np.ndarray:
        """Colours of the labels 0, 1 ..., whatever their ids, (256 or 65536, 3) uint8."""
        if self.ids is None or self.palette:
            return palette_of(self.palette or (), label_type(len(self.class_names)))
        colours = palette_of((), label_type(len(self.class_names)))
        own = {label: value for label, value in enumerate(self.values) if value}
        colours[list(own)] = self.colours[list(own.values())]
        return colours

    def labels_of(self, mask: UInt[np.ndarray, "H W"]) -> UInt[np.ndarray, "H W"]:
        """The labels that the values of a mask stand for."""
        if self.ids is None:
            return mask
        table = np.zeros(np.iinfo(mask.dtype).max + 1, label_type(len(self.class_names)))
        for label, value in enumerate(self.values):
            if value:
                table[value] = label
        return table[mask]

    @property
    def label_type(self) -> np.dtype[Any]:
        """Of the masks: 8 bits, or 16 where there are over 254 classes, or ids over 254."""
        return label_type(max(self.values))

    @property
    def table_schema(self) -> pa.Schema:
        """Of the masks' table; what they hold is said where they have 16 bits."""
        if self.label_type == np.uint8:
            return MASK_SCHEMA
        return MASK_SCHEMA.with_metadata({**(MASK_SCHEMA.metadata or {}), **WIDE})

    @property
    def place(self) -> str:
        """Path or URL of the folder with the Parquet files, for people and their next tool."""
        return f"{self.out.rstrip('/')}/{STAGE}/{self.fingerprint}"

    @property
    def folder(self) -> StageFolder:
        """Where the masks lie."""
        return StageFolder(RunFolder(self.out), STAGE, self.fingerprint)


def _of_ids(decide: Decide, values: tuple[int, ...], maps: ClassMaps, size: tuple[int, int]) -> Scores:
    """What a method decides, of what the labels become in masks; queries for background are background by now."""
    scores = decide(maps, size)
    return replace(scores, labels=tuple(values[label] for label in scores.labels))


def _confidence(label_map: LabelMap) -> dict[str, bytes | None]:
    return {"bytes": encode_grey((label_map.confidence * 255 + 0.5).astype(np.uint8)), "path": None}


def _row(job: MaskJob, sample: Sample, maps: ClassMaps, label_map: LabelMap) -> dict[str, Any]:
    pixels = np.bincount(label_map.labels.ravel(), minlength=max(job.values) + 1)
    labels = label_map.labels.astype(job.label_type, copy=False)
    return {
        "key": sample.key,
        "source": sample.source,
        "height": maps.height,
        "width": maps.width,
        "mask": {"bytes": encode_label_map(labels, job.colours), "path": f"{sample.key}.png"},
        "classes": [
            {
                "id": value,
                "name": job.class_names[label - 1],
                "pixels": int(pixels[value]),
                "salience": float(label_map.salience[i]),
                "itm": None if maps.itm is None else float(maps.itm[i]),
                "score": maps.scores[i] if maps.scores else None,
            }
            for i, label in enumerate(maps.classes)
            if (value := job.values[label])  # a query for background is no class of the mask
        ],
        "chosen": maps.chosen,
        "notes": list(maps.notes),
        "confidence": _confidence(label_map) if job.config.confidence else None,
        "mean_confidence": float(label_map.confidence.mean()),
        "model": job.model,
        "fingerprint": job.fingerprint,
    }


AT_ONCE = 2**28
"""Bytes of images and scores that are in memory together at most; a single image takes what it needs."""
PIXEL = 12
"""Bytes that a pixel takes beside its scores."""


def _batches(images: Iterable[tuple[Sample, ClassMaps]], job: MaskJob) -> Iterator[list[tuple[Sample, ClassMaps]]]:
    """As many together as a batch of the run has and as scores fit in memory."""
    batch, size, most = [], 0, batch_size(job.runtime)
    for sample, maps in images:
        shrunk = min(1.0, job.config.max_side / max(maps.height, maps.width))
        # Pixels, labels and confidence at the image's own size; scores at the one that it is refined at.
        own = int(maps.height * maps.width * (PIXEL + 4 * shrunk**2 * (maps.maps.shape[1] + 1)))
        if batch and (size + own > AT_ONCE or len(batch) == most):
            yield batch
            batch, size = [], 0
        batch.append((sample, maps))
        size += own
    if batch:
        yield batch


def _sound_label_maps(
    batch: Sequence[tuple[Sample, ClassMaps]],
    images: list[np.ndarray],
    job: MaskJob,
    decide: Decide,
    refine: Refiner,
    map_: Map,
    soft: bool,
) -> list[LabelMap]:
    """Label maps of finite numbers alone: where two are compared NaN looks like background.

    Raises:
        ShardError: they are not.
    """
    known = ["background", *job.class_names]
    names = {sample.key: [known[label] for label in maps.classes] for sample, maps in batch}
    for sample, maps in batch:
        for one in maps.parts or (maps,):
            values, how = one.maps.swapaxes(0, 1), "it was made by an earlier version"
            of = [known[label] for label in one.of] or names[sample.key]
            require_finite(values, "the stored salience", sample.key, of, how)
    made = make_label_maps([maps for _, maps in batch], images, decide, refine, job.config.max_side, map_, soft)
    for (sample, _), one in zip(batch, made, strict=True):
        what = "the salience summed over drop iterations"
        require_finite(one.salience, what, sample.key, names[sample.key], "it overflows")
        best = np.unravel_index(one.confidence.argmax(), one.labels.shape)
        won = job.named[int(one.labels[best])]
        how = f"of CRF {job.config.crf.name}"
        require_finite(one.confidence[None], "the label probability", sample.key, [won], how)
    return made


def _pixels(job: MaskJob, sample: Sample) -> np.ndarray:
    return decode_image(sample.image, job.max_pixels).pixels


Finished = TypeVar("Finished")


def make_masks(
    images: Iterable[tuple[Sample, ClassMaps]],
    job: MaskJob,
    pixels: Callable[[Sample], np.ndarray],
    finish: Callable[[Sample, ClassMaps, LabelMap], Finished],
    soft: bool = False,
) -> Iterator[list[Finished]]:
    """Images and their maps to masks, batch by batch.

    Args:
        pixels: of an image, (H, W, 3) uint8.
        finish: what is made of each mask; it and `pixels` run on threads.
        soft: also keep the scores of all classes.

    Raises:
        ShardError: maps or label probabilities of an image are not finite.
    """
    decide, refine, libraries = job.decide, job.open_refiner(), ThreadpoolController()
    fits = fitting(STAGE, job.fingerprint, job.runtime)
    with ThreadPoolExecutor(job.threads, "masks") as pool:

        def work(part: Sequence[tuple[Sample, ClassMaps]]) -> list[Finished]:
            # Of several images at a time each does its products alone: threads of BLAS would wait for each other.
            with libraries.limit(limits=1, user_api="blas"):
                samples, maps = zip(*part, strict=True)
                guides = list(pool.map(pixels, samples))
                made = _sound_label_maps(part, guides, job, decide, refine, pool.map, soft)
                return list(pool.map(finish, samples, maps, made))

        for batch in _batches(images, job):
            yield from fits.parts(batch, work)


def mask_shard(job: MaskJob, shard: ShardRef, salience: StageResult, progress: Progress = silent) -> StageResult:
    """Make the label maps of one shard, unless they are complete.

    Args:
        salience: the salience stage's result for the same shard.

    Raises:
        ShardError: maps or label probabilities of an image are not finite.
    """
    run = RunFolder(job.out)

    def work() -> StageOutput:
        stored = read_class_maps(StageFolder(run, SALIENCE, job.salience_fingerprint), shard.name)
        # What has no maps was quarantined by the salience stage.
        images = ((one, stored[one.key]) for one in read_shard(run, shard) if one.key in stored)
        rows: list[dict[str, Any]] = []
        for made in make_masks(images, job, partial(_pixels, job), partial(_row, job)):
            rows += made
            progress(len(made))
        progress(shard.samples - len(rows))
        return StageOutput({"parquet": table_bytes(pa.Table.from_pylist(rows, schema=job.table_schema))}, len(rows))

    return job.folder.complete(shard.name, salience.record_sha256, work)


def export_png(job: MaskJob, shard: ShardRef, masks: StageResult) -> StageResult:
    """Write a shard's masks as png/<fingerprint>/<key>.png, unless that is complete."""
    folder = StageFolder(RunFolder(job.out), PNG, job.fingerprint)

    def work() -> StageOutput:
        masks = read_masks(job.folder, shard.name)
        files = {f"{PNG}/{job.fingerprint}/{key}.png": data for key, data in masks.items()}
        return StageOutput({}, len(files), extra=files)

    return folder.complete(shard.name, masks.record_sha256, work)
