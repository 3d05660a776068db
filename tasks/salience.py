"""Task of the salience stage."""

from pnp_core.data import ShardRef, StageResult
from pnp_core.stages.maps import SalienceJob, extract_shard
from tasks.runtime import run_on_shard, stage_task


@stage_task("salience", run_name="salience-{shard.name}")
def task_extract_shard(job: SalienceJob, shard: ShardRef, before: StageResult | None = None) -> StageResult:
    """Extract the salience of one shard."""
    return run_on_shard("salience", shard, lambda progress: extract_shard(job, shard, progress))
