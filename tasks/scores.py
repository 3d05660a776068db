"""Tasks of the score stage."""

from typing import Any

from pnp_core.data import ShardRef, StageResult
from pnp_core.stages.scores import ScoreJob, merge_scores, score_shard
from tasks.runtime import run_on_shard, stage_task


@stage_task("scores", run_name="scores-{shard.name}")
def task_score_shard(job: ScoreJob, shard: ShardRef, before: StageResult) -> StageResult:
    """Count the pixels of one shard."""
    return run_on_shard("scores", shard, lambda progress: score_shard(job, shard, before, progress))


@stage_task("merge-scores")
def task_merge_scores(job: ScoreJob, shards: list[ShardRef]) -> dict[str, Any]:
    """Add up the counts of all shards."""
    return merge_scores(job, shards)
