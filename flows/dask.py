"""Shards on the workers of a Dask cluster."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pnp_core.config import DispatchConfig
from pnp_core.errors import UsageError
from tasks.runtime import attempts, observer

if TYPE_CHECKING:
    from flows.stages import Stage, Work
    from pnp_core.records import ShardRef, StageResult

GPU = {"GPU": 1}
"""Salience asks for this resource, so a worker with one GPU has one model loaded and one shard at a time."""


class DaskWorkers:
    """A cluster for the stages of one run: one that is there, or one of our own on this machine."""

    def __init__(self, dispatch: DispatchConfig) -> None:
        """Choose the cluster; it is opened by `with`.

        Raises:
            UsageError: prefect-dask is not installed.
        """
        try:
            from prefect_dask import DaskTaskRunner
        except ImportError as error:
            raise UsageError("dispatch to Dask needs its extra: pip install 'pnp-ovss[dask]'") from error
        self._dispatch = dispatch
        local = {
            "n_workers": dispatch.workers, "threads_per_worker": 1, "resources": GPU, "dashboard_address": None,
            "silence_logs": 50,
        }  # fmt: skip
        there = {"address": dispatch.scheduler} if dispatch.scheduler else {"cluster_kwargs": local}
        self._runner: Any = DaskTaskRunner(**there)

    def __enter__(self) -> DaskWorkers:
        if self._dispatch.scheduler:
            self._check_scheduler(self._dispatch.scheduler)
        self._runner.__enter__()
        return self

    @staticmethod
    def _check_scheduler(address: str) -> None:
        """Without it, or without a worker that has a GPU, shards would wait for ever."""
        from distributed import Client

        try:
            with Client(address, timeout=10) as client:
                workers = client.scheduler_info(n_workers=-1)["workers"].values()
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot reach the Dask scheduler {address}: {' '.join(str(error).split())}") from error
        if not any(worker["resources"].get("GPU") for worker in workers):
            raise UsageError(f"no worker of {address} has a GPU: start them with `dask worker --resources GPU=1`")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.__exit__(kind, value, trace)

    def run(self, stage: Stage, work: list[Work], gpu: bool) -> Generator[tuple[ShardRef, StageResult | Exception]]:
        """All shards, in the order in which they are done."""
        import dask
        from prefect.futures import as_completed

        task = stage.task.with_options(**attempts(self._dispatch))
        with dask.annotate(resources=GPU) if gpu else dask.annotate():
            shards = {
                self._runner.submit(task, {"job": stage.job, "shard": shard, "given": given}): shard
                for shard, given in work
            }
        for future in as_completed(list(shards)):
            shard = shards[future]
            observer().advance(stage.name, shard.samples)
            try:
                yield shard, future.result()
            except Exception as error:  # what stops the run is decided by run_stage
                yield shard, error
