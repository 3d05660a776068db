"""The fan-out every flow shares: all shards through one stage after the other."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from pnp_core.plan import Plan
from pnp_core.records import RunSummary, ShardRef, StageResult, StageSummary, Summary
from tasks.masks import task_export_png, task_mask_shard
from tasks.runtime import observer
from tasks.salience import task_extract_shard
from tasks.scores import task_merge_scores, task_score_shard

ShardStage = Callable[[ShardRef, StageResult | None], StageResult]


def run_shard_stage(write: Callable[[], list[ShardRef]], summary: Summary) -> list[ShardRef]:
    """Write the shards and count the pictures."""
    observer().begin("shard", None)
    start = monotonic()
    shards = write()
    summary.images = sum(shard.samples for shard in shards)
    seconds = monotonic() - start
    summary.stages["shard"] = StageSummary(len(shards), images=summary.images, seconds=seconds)
    observer().advance("shard", summary.images)
    observer().end("shard")
    return shards


def run_stage(
    stage: str, run: ShardStage, shards: list[ShardRef], inputs: list[StageResult] | None, summary: Summary
) -> list[StageResult]:
    """One stage over all shards, in order."""
    observer().begin(stage, sum(shard.samples for shard in shards))
    counts = summary.stages.setdefault(stage, StageSummary())
    results = []
    for shard, given in zip(shards, inputs or [None] * len(shards), strict=True):
        results.append(run(shard, given))
        counts.add(results[-1])
    observer().end(stage)
    return results


def run_stages(plan: Plan, shards: list[ShardRef], summary: RunSummary) -> None:
    """Salience, masks, PNG when asked, scores when there is ground truth."""
    salience = run_stage("salience", lambda s, _: task_extract_shard(plan.salience, s), shards, None, summary)
    masks = run_stage("masks", lambda s, r: task_mask_shard(plan.masks, s, r), shards, salience, summary)
    if plan.png:
        run_stage("png", lambda s, r: task_export_png(plan.masks, s, r), shards, masks, summary)
    summary.labelled = summary.stages["masks"].images
    summary.resumed = summary.stages["masks"].images_resumed
    summary.quarantined = sum(summary.stages[stage].quarantined for stage in ("salience", "masks"))
    if score := plan.score:
        run_stage("scores", lambda s, r: task_score_shard(score, s, r), shards, masks, summary)
        summary.scores = task_merge_scores(score, shards)
