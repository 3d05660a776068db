"""Tasks of the masks stage."""

from pnp_core.data import ShardRef, StageResult
from pnp_core.stages.masks import MaskJob, export_png, mask_shard
from tasks.runtime import run_on_shard, stage_task


@stage_task("masks", run_name="masks-{shard.name}")
def task_mask_shard(job: MaskJob, shard: ShardRef, before: StageResult) -> StageResult:
    """Make the masks of one shard."""
    return run_on_shard("masks", shard, lambda progress: mask_shard(job, shard, before, progress))


@stage_task("png", run_name="png-{shard.name}")
def task_export_png(job: MaskJob, shard: ShardRef, before: StageResult) -> StageResult:
    """Write the masks of one shard as PNG files."""
    return export_png(job, shard, before)
