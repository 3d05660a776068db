"""Flow `salience`: the salience of a batch of shards, for a worker with a GPU.

Its deployment `salience/gpu` is called by other flows with `dispatch: {mode: deployment}`.
"""

from __future__ import annotations

from prefect import flow

from flows.dispatch.base import Stage
from flows.dispatch.inline import Inline
from flows.dispatch.stages import run_stage
from pnp_core.data import Summary
from pnp_core.stages.batch import SalienceBatch
from tasks.runtime import runtime
from tasks.salience import task_extract_shard
from tasks.with_prefect import in_prefect


@flow(name="salience", flow_run_name="{batch.title}", persist_result=False)
def extract_batch(batch: SalienceBatch) -> None:
    """Extract the salience of a batch of shards; finished ones are not computed again.

    Shards that fail are set aside after the last attempt, and the rest goes on.
    """
    job = batch.job()
    with in_prefect(), runtime().shown():
        work = [(shard, None) for shard in batch.shards]
        stage = Stage("salience", task_extract_shard, job, job.folder)
        run_stage(stage, work, Summary(batch.out), Inline(batch.dispatch), extent="part")
