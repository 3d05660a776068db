"""The one task decorator, and how tasks report progress.

Resume is the completion records' (`pnp_core.storage.completion`), not Prefect's cache: they survive a lost
database, edited code and another host. So results are neither cached nor persisted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event
from typing import Any, Protocol

from prefect import task
from prefect.cache_policies import NO_CACHE

from pnp_core.data import ShardRef, StageResult
from pnp_core.errors import PnpError
from pnp_core.stages.config import DispatchConfig


class Observer(Protocol):
    """Whoever shows progress."""

    def begin(self, stage: str, total: int | None) -> None:
        """A stage starts; `total` pictures, when known."""
        ...

    def advance(self, stage: str, images: int) -> None:
        """So many more pictures of a stage are done."""
        ...

    def end(self, stage: str) -> None:
        """A stage is over."""
        ...


class SilentObserver:
    """Shows nothing."""

    def begin(self, stage: str, total: int | None) -> None:
        """Ignore."""

    def advance(self, stage: str, images: int) -> None:
        """Ignore."""

    def end(self, stage: str) -> None:
        """Ignore."""


_observer: Observer = SilentObserver()


def observer() -> Observer:
    """The current observer of this process."""
    return _observer


@contextmanager
def observed_by(new: Observer) -> Iterator[None]:
    """Send progress of this process to an observer while the block runs."""
    global _observer
    previous, _observer = _observer, new
    try:
        yield
    finally:
        _observer = previous


class Ended(BaseException):
    """Work on a shard is given up: what it is beside has ended."""


_ends: ContextVar[Event | None] = ContextVar("ends", default=None)


@contextmanager
def ended_by(event: Event) -> Iterator[None]:
    """Give work up with the next images that are done when an event is set, while the block runs in this context."""
    token = _ends.set(event)
    try:
        yield
    finally:
        _ends.reset(token)


def _may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Our own errors say what is wrong and stay wrong, but for the file system's bad moments."""
    error = state.result(raise_on_failure=False)
    moment = any(isinstance(e, ConnectionError | TimeoutError) for e in (error, getattr(error, "__cause__", None)))
    return moment or not isinstance(error, PnpError)


def stage_task(stage: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """The project's task decorator: one task per shard, resumed by completion records."""
    once = attempts(DispatchConfig())
    return task(
        name=stage,
        cache_policy=NO_CACHE,
        persist_result=False,
        retry_condition_fn=_may_pass,
        **once,
        **options,
    )


def attempts(dispatch: DispatchConfig) -> dict[str, Any]:
    """Task options: how often a shard is tried, and for how long."""
    retries = dispatch.attempts - 1
    return {
        "retries": retries,
        "retry_delay_seconds": [dispatch.delay(n + 1) for n in range(retries)] or None,
        "timeout_seconds": dispatch.shard_seconds,
    }


def run_on_shard(stage: str, shard: ShardRef, work: Callable[[Callable[[int], None]], StageResult]) -> StageResult:
    """Run a stage function on a shard and pass its progress on; a resumed shard counts at once."""
    watch, ends = _observer, _ends.get()

    def progress(images: int) -> None:
        if ends and ends.is_set():
            raise Ended(stage)
        watch.advance(stage, images)

    result = work(progress)
    if result.resumed:
        watch.advance(stage, shard.samples)
    return result
