"""Flow `salience`: the salience of a batch of shards, for a worker with a GPU.

Its deployment `salience/gpu` is called by other flows with `dispatch: {mode: deployment}`.
"""

from __future__ import annotations

from prefect import flow

from flows.reporting import progress_artifacts
from flows.stages import Stage, run_stage
from pnp_core.cards import DatasetCard
from pnp_core.config import Config, DispatchConfig, RuntimeConfig, SalienceConfig
from pnp_core.errors import UsageError
from pnp_core.records import ShardRef, Summary
from pnp_core.stages.salience import SalienceJob
from tasks.salience import task_extract_shard


class SalienceBatch(Config):
    """Shards of a run for one worker."""

    out: str
    """Run folder, on storage that both sides see."""
    salience: SalienceConfig
    runtime: RuntimeConfig
    dispatch: DispatchConfig
    card: DatasetCard
    vocabulary: tuple[int, ...]
    fingerprint: str
    """What the sender makes of all this."""
    shards: tuple[ShardRef, ...]

    @property
    def title(self) -> str:
        """Name of the flow run, for people."""
        return f"salience-{self.shards[0].name}-to-{self.shards[-1].name}"

    @classmethod
    def of(cls, job: SalienceJob, shards: list[ShardRef], dispatch: DispatchConfig) -> SalienceBatch:
        """What a worker has to know of a job."""
        salience = job.config
        if job.checkpoint.from_hub:  # the newest one may be another tomorrow
            backbone = salience.backbone.model_copy(update={"revision": job.checkpoint.revision})
            salience = salience.model_copy(update={"backbone": backbone})
        return cls(
            out=job.out,
            salience=salience,
            runtime=job.runtime,
            dispatch=dispatch,
            card=job.card,
            vocabulary=job.vocabulary,
            fingerprint=job.fingerprint,
            shards=tuple(shards),
        )

    def job(self) -> SalienceJob:
        """The job as this machine does it.

        Raises:
            UsageError: the weights, a candidates' file or the program are others here, so results would not fit.
        """
        job = SalienceJob.create(self.out, self.salience, self.runtime, self.card, self.vocabulary)
        if job.fingerprint != self.fingerprint:
            raise UsageError(
                f"this worker would make other salience (fingerprint {job.fingerprint}) than the run asks for "
                f"({self.fingerprint}); install the same version and give it the same weights"
            )
        return job


@flow(name="salience", flow_run_name="{batch.title}", persist_result=False)
def extract_batch(batch: SalienceBatch) -> None:
    """Extract the salience of a batch of shards; finished ones are not computed again.

    Shards that fail are set aside after the last attempt, and the rest goes on.
    """
    job = batch.job()
    with progress_artifacts():
        work = [(shard, None) for shard in batch.shards]
        stage = Stage("salience", task_extract_shard, job, job.folder)
        run_stage(stage, work, Summary(batch.out), batch.dispatch, part=True)
