"""Run folders made by hand: masks and ground truth whose pixels are known."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pnp_core.data import Sample
from pnp_core.inputs.images import VOC_PALETTE, encode_label_map
from pnp_core.stages.masks import MASK_SCHEMA
from pnp_core.stages.masks import STAGE as MASKS
from pnp_core.storage.completion import StageFolder, StageOutput
from pnp_core.storage.ownership import writing
from pnp_core.storage.run_folder import RunFolder, table_bytes
from pnp_core.storage.shards import write_shards

Labels = list[list[int]]


def picture(size: tuple[int, int], grey: int = 90) -> bytes:
    """A PNG of one grey.

    Args:
        size: (H, W).
    """
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size, 3), grey, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def made_run(
    out: Path,
    masks: dict[str, Labels],
    classes: tuple[str, ...],
    truths: dict[str, Labels] | None = None,
    *,
    config: dict[str, Any] | None = None,
    greys: dict[str, int] | None = None,
    per_shard: int = 2,
) -> Path:
    """A finished run: of eval where there are truths, else of label.

    Args:
        masks: labels by key.
        greys: of the pictures, 90 where none is given.
    """
    maps = {key: np.array(labels, np.uint8) for key, labels in masks.items()}
    samples = [
        Sample(
            key=key,
            image=picture(labels.shape, (greys or {}).get(key, 90)),
            extension="png",
            source=f"pictures/{key}.png",
            label_map=encode_label_map(np.array(truths[key], np.uint8)) if truths else None,
        )
        for key, labels in maps.items()
    ]
    run = RunFolder(str(out))
    with writing(str(out), "run"):
        sizes = iter(lambda: per_shard, 0)
        shards = write_shards(run, iter(samples), sizes, "made by hand", "0" * 16)
        folder = StageFolder(run, MASKS, "0" * 16)
        keys = iter(maps)
        for shard in shards:
            rows = [_row(key, maps[key]) for key in (next(keys) for _ in range(shard.samples))]
            table = table_bytes(pa.Table.from_pylist(rows, schema=MASK_SCHEMA))
            output = StageOutput({"parquet": table}, len(rows))
            folder.complete(shard.name, shard.sha256, lambda made=output: made)
        run.write_json("run.json", _record(out, classes, len(maps), bool(truths), config or {}))
    return out


def _row(key: str, labels: np.ndarray) -> dict[str, Any]:
    mask = {"bytes": encode_label_map(labels), "path": f"{key}.png"}
    height, width = labels.shape
    own = {"key": key, "source": f"pictures/{key}.png", "height": height, "width": width, "mask": mask}
    return {**own, "classes": [], "chosen": "", "notes": [], "mean_confidence": 0.5, "model": "hand", "fingerprint": ""}


def _record(out: Path, classes: tuple[str, ...], images: int, scored: bool, config: dict[str, Any]) -> dict[str, Any]:
    summary = {"images": images, "labelled": images, "quarantined": 0, "failed": 0, "masks": str(out), "miou": None}
    if scored:
        summary["per_class_iou"] = dict.fromkeys(("background", *classes))
    return {
        "weights_revision": "hand",
        "model": None,
        "card": None,
        "stages": {},
        "config": {"out": str(out), "method": {"name": "hand"}, **config, "masks": {"confidence": False, "blur": 0.0}},
        "versions": {},
        "commit": None,
        "classes": list(classes),
        "palette": [f"#{bytes(VOC_PALETTE[label]).hex()}" for label in range(len(classes) + 1)],
        "fingerprints": {"salience": "0" * 16, "masks": "0" * 16, "scores": "0" * 16 if scored else None},
        "evaluation": "0" * 16 if scored else None,
        "device": None,
        "memory": None,
        "rates": {},
        "summary": summary,
    }
