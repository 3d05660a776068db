"""Masks stage: stored salience to label maps, one Parquet row per picture; and their PNG export."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from pnp_core.data import ClassMaps, Progress, Sample, ShardRef, StageResult, silent
from pnp_core.finite import require_finite
from pnp_core.frozen import Config
from pnp_core.inputs.images import VOC_PALETTE, decode_image, encode_grey, encode_label_map, palette_of
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.label_map import LabelMap, make_label_map
from pnp_core.stages.maps import STAGE as SALIENCE
from pnp_core.stages.maps import read_salience
from pnp_core.storage.completion import StageFolder, StageOutput
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
"""One row per picture: `mask.bytes` is a palette PNG, `confidence.bytes` a grey PNG or null, `mean_confidence` the
mean over the pixels of the winning label's probability. `chosen` says how the candidate classes were chosen,
`classes.score` what their source gave them; `notes` what was done to the picture to read it."""


class MaskJob(Config):
    """What the masks stage does, for any shard of a run."""

    out: str
    config: MaskConfig
    """With `background` resolved."""
    max_pixels: int
    class_names: tuple[str, ...]
    """Names of the labels 1, 2 ..."""
    palette: tuple[str, ...] | None = None
    """Colours #rrggbb of the labels 0, 1 ...; the Pascal VOC colour map when None."""
    model: str
    """The weights, for people who read the rows."""
    salience_fingerprint: str

    @property
    def fingerprint(self) -> str:
        """Names the configuration and the salience it starts from."""
        rows = [self.class_names, self.palette]
        return fingerprint(STAGE, VERSION, self.config.facts(), rows, self.salience_fingerprint)

    @property
    def colours(self) -> np.ndarray:
        """The palette, (256, 3) uint8."""
        return VOC_PALETTE if self.palette is None else palette_of(self.palette)

    @property
    def place(self) -> str:
        """Path or URL of the folder with the Parquet files, for people and their next tool."""
        return f"{self.out.rstrip('/')}/{STAGE}/{self.fingerprint}"

    @property
    def folder(self) -> StageFolder:
        """Where the masks lie."""
        return StageFolder(RunFolder(self.out), STAGE, self.fingerprint)


def _confidence(label_map: LabelMap) -> dict[str, bytes | None]:
    return {"bytes": encode_grey((label_map.confidence * 255 + 0.5).astype(np.uint8)), "path": None}


def _row(sample: Sample, maps: ClassMaps, label_map: LabelMap, job: MaskJob) -> dict[str, Any]:
    pixels = np.bincount(label_map.labels.ravel(), minlength=256)
    return {
        "key": sample.key,
        "source": sample.source,
        "height": maps.height,
        "width": maps.width,
        "mask": {"bytes": encode_label_map(label_map.labels, job.colours), "path": f"{sample.key}.png"},
        "classes": [
            {
                "id": class_id,
                "name": job.class_names[class_id - 1],
                "pixels": int(pixels[class_id]),
                "salience": float(label_map.salience[i]),
                "itm": float(maps.itm[i]),
                "score": maps.scores[i] if maps.scores else None,
            }
            for i, class_id in enumerate(maps.classes)
        ],
        "chosen": maps.chosen,
        "notes": list(maps.notes),
        "confidence": _confidence(label_map) if job.config.confidence else None,
        "mean_confidence": float(label_map.confidence.mean()),
        "model": job.model,
        "fingerprint": job.fingerprint,
    }


def _sound_label_map(maps: ClassMaps, picture: np.ndarray, key: str, job: MaskJob) -> LabelMap:
    """The label map, of finite numbers alone: where two are compared NaN looks like background.

    Raises:
        ShardError: they are not.
    """
    names = [job.class_names[label - 1] for label in maps.classes]
    require_finite(maps.maps.swapaxes(0, 1), "the stored salience", key, names, "it was made by an earlier version")
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at
        made = make_label_map(maps, picture, job.config)
    require_finite(made.salience, "the salience summed over drop iterations", key, names, "it overflows")
    won = ["background", *job.class_names][made.labels[np.unravel_index(made.confidence.argmax(), made.labels.shape)]]
    require_finite(made.confidence[None], "the label probability", key, [won], f"of CRF {job.config.crf.name}")
    return made


def mask_shard(job: MaskJob, shard: ShardRef, salience: StageResult, progress: Progress = silent) -> StageResult:
    """Make the label maps of one shard, unless they are complete.

    Args:
        salience: the salience stage's result for the same shard.

    Raises:
        ShardError: salience or label probabilities of a picture are not finite.
    """
    run = RunFolder(job.out)

    def work() -> StageOutput:
        stored = read_salience(StageFolder(run, SALIENCE, job.salience_fingerprint), shard.name)
        rows = []
        for sample in read_shard(run, shard):
            # Pictures without salience were quarantined by the salience stage.
            if maps := stored.get(sample.key):
                picture = decode_image(sample.image, job.max_pixels).pixels
                rows.append(_row(sample, maps, _sound_label_map(maps, picture, sample.key, job), job))
            progress(1)
        return StageOutput({"parquet": table_bytes(pa.Table.from_pylist(rows, schema=MASK_SCHEMA))}, len(rows))

    return job.folder.complete(shard.name, salience.record_sha256, work)


def export_png(job: MaskJob, shard: ShardRef, masks: StageResult) -> StageResult:
    """Write a shard's masks as png/<fingerprint>/<key>.png, unless that is complete."""
    folder = StageFolder(RunFolder(job.out), PNG, job.fingerprint)

    def work() -> StageOutput:
        masks = read_masks(job.folder, shard.name)
        files = {f"{PNG}/{job.fingerprint}/{key}.png": data for key, data in masks.items()}
        return StageOutput({}, len(files), extra=files)

    return folder.complete(shard.name, masks.record_sha256, work)


def read_masks(folder: StageFolder, shard: str) -> dict[str, bytes]:
    """The palette PNGs of one shard, by key, in the shard's order."""
    table = folder.read_table(shard, "parquet", ["key", "mask"])
    pngs = table["mask"].combine_chunks().field("bytes")
    return dict(zip(table["key"].to_pylist(), pngs.to_pylist(), strict=True))
