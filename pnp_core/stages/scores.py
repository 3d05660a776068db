"""Score stage: masks against ground truth, one confusion matrix per shard, merged by addition."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from pnp_core.data import Progress, ShardRef, StageResult, label_type, silent, void_of
from pnp_core.frozen import Config
from pnp_core.inputs.images import decode_label_map
from pnp_core.metrics import ConfusionMatrix
from pnp_core.stages.config import ScoreConfig
from pnp_core.stages.masks import STAGE as MASKS
from pnp_core.stages.masks import read_masks
from pnp_core.storage.completion import StageFolder, StageOutput
from pnp_core.storage.run_folder import RunFolder, fingerprint, table_bytes
from pnp_core.storage.shards import read_shard

STAGE = "scores"
VERSION = 3


class ScoreJob(Config):
    """What the score stage does, for any shard of a run."""

    out: str
    config: ScoreConfig
    label_names: tuple[str, ...]
    """Names of the labels 0, 1, 2 ..."""
    scored: tuple[int, ...]
    """Labels that enter the mean: without 0 where background is not scored, or a class subset."""
    masks_fingerprint: str

    @property
    def fingerprint(self) -> str:
        """Names the counting rule, the scored labels and the masks; the kind of mean is applied afterwards."""
        return fingerprint(STAGE, VERSION, self.config.void_as_background, self.scored, self.masks_fingerprint)

    @property
    def folder(self) -> StageFolder:
        """Where the counts lie."""
        return StageFolder(RunFolder(self.out), STAGE, self.fingerprint)


def score_shard(job: ScoreJob, shard: ShardRef, masks: StageResult, progress: Progress = silent) -> StageResult:
    """Count one shard's pixels, unless that is complete; pictures without ground truth are left out."""
    run = RunFolder(job.out)
    names = len(job.label_names)

    def work() -> StageOutput:
        predictions = read_masks(StageFolder(run, MASKS, job.masks_fingerprint), shard.name)
        total, ignored, images = ConfusionMatrix.zeros(names), 0, []
        for sample in read_shard(run, shard):
            if sample.label_map is not None and sample.key in predictions:
                truth, prediction = decode_label_map(sample.label_map), decode_label_map(predictions[sample.key])
                matrix = ConfusionMatrix.of(truth, prediction, names, job.config.void_as_background)
                total += matrix
                images.append(_image_row(sample.key, matrix, job))
                ignored += 0 if job.config.void_as_background else int((truth == void_of(truth)).sum())
            progress(1)
        rows, columns = np.nonzero(total.counts)
        counts = {"truth": rows, "prediction": columns, "pixels": total.counts[rows, columns]}
        table = pa.table(counts).replace_schema_metadata({"images": str(len(images)), "ignored": str(ignored)})
        files = {
            "parquet": table_bytes(table),
            "pictures.parquet": table_bytes(pa.Table.from_pylist(images, schema=_IMAGES)),
        }
        return StageOutput(files, len(images))

    return job.folder.complete(shard.name, masks.record_sha256, work)


_IMAGES = pa.schema(
    [
        ("key", pa.string()),
        ("miou", pa.float64()),
        ("labels", pa.list_(pa.int32())),
        ("iou", pa.list_(pa.float64())),
    ]
)
"""Per picture: IoU of the scored labels in its ground truth or its mask, and the mean over those in its ground
truth (null when it has none)."""


def _image_row(key: str, matrix: ConfusionMatrix, job: ScoreJob) -> dict[str, Any]:
    labels = np.flatnonzero(matrix.averaged("union", job.scored))
    mean = _number(matrix.mean_iou("present", job.scored))
    return {"key": key, "miou": mean, "labels": labels.tolist(), "iou": matrix.iou()[labels].tolist()}


def read_image_scores(job: ScoreJob, shard: str) -> list[dict[str, Any]]:
    """What was counted of every picture of a shard, see `_IMAGES`, in the shard's order."""
    return job.folder.read_table(shard, "pictures.parquet").to_pylist()


def _number(value: float) -> float | None:
    """JSON has no NaN: what was not measured is null."""
    return None if np.isnan(value) else float(value)


def merge_counts(job: ScoreJob, shards: Iterable[ShardRef]) -> tuple[ConfusionMatrix, int, int]:
    """Add up all shards: the confusion matrix, pictures scored, pixels of the ground truth that were void."""
    counts = np.zeros((len(job.label_names),) * 2, dtype=np.int64)
    images = ignored = 0
    for shard in shards:
        table = job.folder.read_table(shard.name, "parquet")
        truth, prediction, pixels = (table[name].to_numpy() for name in ("truth", "prediction", "pixels"))
        np.add.at(counts, (truth, prediction), pixels)
        images += int(table.schema.metadata[b"images"])
        ignored += int(table.schema.metadata[b"ignored"])
    return ConfusionMatrix(counts), images, ignored


def merge_scores(job: ScoreJob, shards: Iterable[ShardRef]) -> dict[str, Any]:
    """Add up all shards.

    `classes` is how many are scored, `classes_present` how many of them occur in the ground truth,
    `images_scored`, `pixels` and `pixels_ignored` what was counted and what was void. `warnings`, there only when
    there are some, say why the score is worth nothing.
    """
    matrix, images, ignored = merge_counts(job, shards)
    iou = matrix.iou()
    found = {
        "miou": _number(matrix.mean_iou(job.config.mean, job.scored)),
        "miou_present": _number(matrix.mean_iou("present", job.scored)),
        "miou_union": _number(matrix.mean_iou("union", job.scored)),
        "pixel_accuracy": _number(matrix.pixel_accuracy()),
        "images_scored": images,
        "classes": len(job.scored),
        "classes_present": int(matrix.averaged("present", job.scored).sum()),
        "pixels": int(matrix.counts.sum()),
        "pixels_ignored": ignored,
        "per_class_iou": {job.label_names[label]: _number(iou[label]) for label in job.scored},
    }
    truth = matrix.counts.sum(axis=1)
    if images and not truth[1:].any():
        void = int(np.iinfo(label_type(len(job.label_names) - 1)).max)
        found["warnings"] = [f"the score means nothing: {without_classes(int(truth[0]), ignored, images, void)}"]
    return found


def without_classes(background: int, void: int, masks: int, value: int) -> str:
    """What is to be said of ground truth in which no class occurs.

    Args:
        background: pixels of label 0.
        void: pixels of no class.
        masks: number of pictures.
        value: of void in the masks: 255, or 65535 where they have 16 bits.

    >>> without_classes(100, 0, 3, 255)
    'no class occurs in any of 3 masks: all is background'
    """
    nothing = f"no class occurs in any of {masks} masks"
    if not void:
        return f"{nothing}: all is background"
    share = f"{void / (background + void):.1%} of the pixels are {value}"
    return (
        f"{nothing}: there is nothing but background (0), and {share}, which is void and never scored. Where {value} "
        f"is meant as a class, write the class's number instead (1 for the first)"
    )
