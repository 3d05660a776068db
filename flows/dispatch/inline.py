"""Shards in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from flows.dispatch.base import Results, Stage, Work
from pnp_core.stages.config import DispatchConfig
from pnp_core.stages.maps import SalienceJob


class Inline:
    """A `Dispatch` without workers."""

    def __init__(self, config: DispatchConfig) -> None:
        self.config = config

    def __enter__(self) -> Inline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open."""

    def overlaps(self, job: SalienceJob) -> bool:
        """Whether the model leaves the CPU to the masks, unless the configuration says it."""
        if job.runtime.overlap is not None:
            return job.runtime.overlap
        from pnp_core.devices import leaves_cpu  # imports torch, which a run without any work does not need

        return leaves_cpu(job.runtime.device)

    def run(self, stage: Stage, work: Iterable[Work]) -> Results:
        """One shard after the other."""
        task = stage.task.tried_as(self.config)
        for shard, before in work:
            try:
                yield shard, task(stage.job, shard, before)
            except Exception as error:  # what stops the run is decided by run_stage
                yield shard, error
