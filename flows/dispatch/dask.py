"""Shards on the workers of a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import CancelledError
from queue import Empty, SimpleQueue
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from flows.dispatch.inline import Inline
from pnp_core.errors import PnpError, UsageError
from pnp_core.stages.config import DispatchConfig
from tasks.masks import task_mask_shard
from tasks.runtime import observer
from tasks.salience import task_extract_shard
from tasks.with_prefect import prefect_task

if TYPE_CHECKING:
    from flows.dispatch.base import Results, Stage, Work
    from pnp_core.stages.maps import SalienceJob

GPU = {"GPU": 1}
"""Salience asks for this resource, so a worker with one GPU has one model loaded and one shard at a time."""
LOOK_EVERY = 10.0
"""Seconds without a finished shard after which the workers are looked after."""


class WorkersLostError(PnpError):
    """A Dask cluster has no worker left that could do the work, or is gone itself."""


class DaskWorkers(Inline):
    """A cluster for the stages of one run: one that is there, or one of our own on this machine."""

    def __init__(self, config: DispatchConfig) -> None:
        """Choose the cluster; it is opened by `with`.

        Raises:
            UsageError: prefect-dask is not installed.
        """
        try:
            from prefect_dask import DaskTaskRunner
        except ImportError as error:
            raise UsageError("dispatch to Dask needs its extra: pip install 'pnp-ovss[dask]'") from error
        super().__init__(config)
        local = {
            "n_workers": config.workers, "threads_per_worker": 1, "resources": GPU, "dashboard_address": None,
            "silence_logs": 50,
            # A worker that imports torch does not listen. Busy for half a minute it was taken for dead, so it imports
            # before it connects.
            "preload": ["torch", task_extract_shard.fn.__module__, task_mask_shard.fn.__module__],
        }  # fmt: skip
        there = {"address": config.scheduler} if config.scheduler else {"cluster_kwargs": local}
        self._runner: Any = DaskTaskRunner(**there)

    def __enter__(self) -> DaskWorkers:
        if self.config.scheduler:
            self._check_scheduler(self.config.scheduler)
        self._runner.__enter__()
        return self

    @staticmethod
    def _check_scheduler(address: str) -> None:
        """Without it, or without a worker that has a GPU, shards would wait for ever."""
        from distributed import Client

        try:
            with Client(address, timeout=10) as client:
                workers = _able(client, gpu=True)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot reach the Dask scheduler {address}: {' '.join(str(error).split())}") from error
        if not workers:
            raise UsageError(f"no worker of {address} has a GPU: start them with `dask worker --resources GPU=1`")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.__exit__(kind, value, trace)

    def overlaps(self, job: SalienceJob) -> bool:
        """Never: workers with a GPU make masks too, and would let it wait."""
        return False

    def run(self, stage: Stage, work: Iterable[Work]) -> Results:
        """All shards, in the order in which they are done; what needs no workers in this process."""
        if stage.needs == "none":
            yield from super().run(stage, work)
            return
        import dask

        gpu = stage.needs == "gpu"
        task = prefect_task(stage.task.tried_as(self.config))
        done: SimpleQueue[Any] = SimpleQueue()
        with dask.annotate(resources=GPU) if gpu else dask.annotate():
            shards = {
                self._runner.submit(task, {"job": stage.job, "shard": shard, "before": before}): shard
                for shard, before in work
            }
        for future in shards:
            future.add_done_callback(done.put)
        for _ in range(len(shards)):
            future = self._next(done, gpu)
            shard = shards[future]
            observer().advance(stage.name, shard.samples)
            try:
                yield shard, future.result()
            except CancelledError as error:
                raise WorkersLostError(f"the Dask cluster was stopped: {error}; run again to go on") from error
            except Exception as error:  # what stops the run is decided by run_stage
                yield shard, error

    def _next(self, done: SimpleQueue[Any], gpu: bool) -> Any:
        """The next future that is done; raises WorkersLostError when nobody has been there to do it for too long."""
        worked = monotonic()
        while True:
            try:
                return done.get(timeout=LOOK_EVERY)
            except Empty:
                if self._workers(gpu):
                    worked = monotonic()
            if monotonic() - worked > self.config.lost_after:
                who, long = "worker with a GPU" if gpu else "worker", self.config.lost_after
                raise WorkersLostError(f"the Dask cluster has had no {who} for {long:.0f} s: start some and run again")

    def _workers(self, gpu: bool) -> int:
        """How many workers could take a shard. Of a cluster of our own, those that went are replaced."""
        if not self.config.scheduler:
            self._runner.client.cluster.scale(self.config.workers)
        return _able(self._runner.client, gpu)


def _able(client: Any, gpu: bool) -> int:
    """Number of a scheduler's workers that could take a shard."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return sum(1 for worker in workers if worker["resources"].get("GPU") or not gpu)
