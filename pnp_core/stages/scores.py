"""Score stage: masks against ground truth, one confusion matrix per shard, merged by addition."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from pnp_core.config import Config, ScoreConfig
from pnp_core.images import decode_label_map
from pnp_core.metrics import ConfusionMatrix
from pnp_core.records import Progress, ShardRef, StageResult, silent
from pnp_core.shards import read_shard
from pnp_core.stages.masks import STAGE as MASKS
from pnp_core.stages.masks import read_masks
from pnp_core.store import RunFolder, StageFolder, StageOutput, fingerprint, table_bytes

STAGE = "scores"
VERSION = 1


class ScoreJob(Config):
    """What the score stage does, for any shard of a run."""

    out: str
    config: ScoreConfig
    label_names: tuple[str, ...]
    """Names of the labels 0, 1, 2 ..."""
    masks_fingerprint: str

    @property
    def fingerprint(self) -> str:
        """Names the counting rule and the masks; the kind of mean is applied afterwards."""
        return fingerprint(STAGE, VERSION, self.config.void_as_background, self.masks_fingerprint)

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
        total, scored = ConfusionMatrix.zeros(names), 0
        for sample in read_shard(run, shard):
            if sample.label_map is not None and sample.key in predictions:
                truth, prediction = decode_label_map(sample.label_map), decode_label_map(predictions[sample.key])
                total += ConfusionMatrix.of(truth, prediction, names, job.config.void_as_background)
                scored += 1
            progress(1)
        rows, columns = np.nonzero(total.counts)
        counts = pa.table({"truth": rows, "prediction": columns, "pixels": total.counts[rows, columns]})
        return StageOutput({"parquet": table_bytes(counts)}, scored)

    return job.folder.complete(shard.name, masks.record_sha256, work)


def _number(value: float) -> float | None:
    """JSON has no NaN: what was not measured is null."""
    return None if np.isnan(value) else float(value)


def merge_scores(job: ScoreJob, shards: Iterable[ShardRef]) -> dict[str, Any]:
    """Add up all shards, write scores.json and return what it says."""
    run = RunFolder(job.out)
    counts = np.zeros((len(job.label_names),) * 2, dtype=np.int64)
    for shard in shards:
        table = run.read_table(job.folder.file(shard.name, "parquet"))
        truth, prediction, pixels = (table[name].to_numpy() for name in ("truth", "prediction", "pixels"))
        np.add.at(counts, (truth, prediction), pixels)
    matrix = ConfusionMatrix(counts)
    scores = {
        "miou": _number(matrix.mean_iou(job.config.mean)),
        "miou_present": _number(matrix.mean_iou("present")),
        "miou_union": _number(matrix.mean_iou("union")),
        "pixel_accuracy": _number(matrix.pixel_accuracy()),
        "per_class_iou": dict(zip(job.label_names, map(_number, matrix.iou()), strict=True)),
    }
    run.write_json("scores.json", scores)
    return scores
