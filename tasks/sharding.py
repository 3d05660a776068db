"""Tasks that write the shards of a run."""

from pnp_core.config import EvalConfig, LabelConfig
from pnp_core.data import ShardRef
from pnp_core.runs.sharding import shard_dataset, shard_source
from tasks.runtime import stage_task


@stage_task("shard")
def task_shard_dataset(config: EvalConfig) -> list[ShardRef]:
    """Shard a dataset split."""
    return shard_dataset(config)


@stage_task("shard")
def task_shard_source(config: LabelConfig) -> list[ShardRef]:
    """Shard a user's pictures."""
    return shard_source(config)
