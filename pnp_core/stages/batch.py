"""What a worker elsewhere has to know to extract the salience of some shards."""

from __future__ import annotations

from pnp_core.data import ShardRef
from pnp_core.errors import UsageError
from pnp_core.frozen import Config
from pnp_core.inputs.cards import DatasetCard
from pnp_core.methods import AnyMethod
from pnp_core.stages.config import DispatchConfig, RuntimeConfig, SalienceConfig
from pnp_core.stages.maps import SalienceJob


class SalienceBatch(Config):
    """Shards of a run for one worker."""

    out: str
    """Run folder, on storage that both sides see."""
    method: AnyMethod
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
        return cls(
            out=job.out,
            method=job.method.with_revision(job.pinned),
            salience=job.config,
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
        job = SalienceJob.create(self.out, self.method, self.salience, self.runtime, self.card, self.vocabulary)
        if job.fingerprint != self.fingerprint:
            raise UsageError(
                f"this worker would make other salience (fingerprint {job.fingerprint}) than the run asks for "
                f"({self.fingerprint}); install the same version and give it the same weights"
            )
        return job
