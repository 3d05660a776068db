"""Tasks, who runs them, and how they report progress. Nothing here needs Prefect.

A run is the same functions in the same order whoever runs it. What differs is the `Runtime`: how a task is tried again,
where logs go, where progress and pages are shown. `Plain` does it in this process (`tasks.plain`), `tasks.with_prefect`
by Prefect.

Resume is the completion records' (`pnp_core.storage.completion`), not Prefect's cache: they survive a lost
database, edited code and another host.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from pnp_core.data import ShardRef, StageResult
from pnp_core.errors import PnpError
from pnp_core.stages.config import DispatchConfig

P = ParamSpec("P")
R = TypeVar("R")
Log = logging.Logger | logging.LoggerAdapter[Any]


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


@dataclass(frozen=True)
class StageTask(Generic[P, R]):
    """A function that is tried again where it fails. Called, it is run by the current `Runtime`.

    Attributes:
        run_name: of one call, for people; a format of the arguments.
        tries: how often, after which waits, and for how long.
    """

    fn: Callable[P, R]
    name: str
    run_name: str | None = None
    tries: DispatchConfig = field(default_factory=DispatchConfig)

    def tried_as(self, dispatch: DispatchConfig) -> StageTask[P, R]:
        """The same task with the attempts and the time limit of a configuration."""
        return replace(self, tries=dispatch)

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> R:
        """Run it.

        Raises:
            TimeoutError: the last attempt took too long.
            Exception: that of the last attempt.
        """
        return runtime().run(self, arguments, named)


def stage_task(name: str, run_name: str | None = None) -> Callable[[Callable[P, R]], StageTask[P, R]]:
    """The project's task decorator: one task per shard, resumed by completion records."""
    return lambda function: StageTask(function, name, run_name)


class Runtime(Protocol):
    """Who runs tasks, and where people see what became of them."""

    @property
    def log(self) -> Log:
        """For what happens in a run."""
        ...

    def run(self, task: StageTask[..., R], arguments: tuple[Any, ...], named: dict[str, Any]) -> R:
        """Run a task, again where it fails for what may pass (`may_pass`); errors as of `StageTask`."""
        ...

    def shown(self) -> AbstractContextManager[None]:
        """Show the progress of the block's stages wherever this runtime has a place for it."""
        ...

    def leave_page(self, text: Callable[[], str], key: str, description: str) -> None:
        """Leave a page of Markdown beside the run; it is made where somebody will see it."""
        ...

    def leave_table(self, rows: list[dict[str, Any]], key: str, description: str) -> None:
        """Leave a table beside the run."""
        ...


_runtime: ContextVar[Runtime | None] = ContextVar("runtime", default=None)


def runtime() -> Runtime:
    """The runtime of this context: this process, unless something else was chosen by `run_by`."""
    from tasks.plain import Plain

    return _runtime.get() or Plain()


@contextmanager
def run_by(new: Runtime) -> Iterator[None]:
    """Have tasks run by a runtime while the block runs in this context."""
    token = _runtime.set(new)
    try:
        yield
    finally:
        _runtime.reset(token)


class Ended(BaseException):
    """Work on a shard is given up: what it is beside has ended."""


_ends: ContextVar[Event | None] = ContextVar("ends", default=None)


def ends() -> Event | None:
    """What ends the work of this context when it is set."""
    return _ends.get()


@contextmanager
def ended_by(event: Event) -> Iterator[None]:
    """Give work up with the next images that are done when an event is set, while the block runs in this context."""
    token = _ends.set(event)
    try:
        yield
    finally:
        _ends.reset(token)


def may_pass(error: BaseException) -> bool:
    """Whether another attempt may help.

    Our own errors say what is wrong and stay wrong, but for the file system's bad moments.

    >>> may_pass(PnpError("no such class")), may_pass(OSError("a bad moment"))
    (False, True)
    """
    moment = any(isinstance(e, ConnectionError | TimeoutError) for e in (error, error.__cause__))
    return moment or not isinstance(error, PnpError)


def run_on_shard(stage: str, shard: ShardRef, work: Callable[[Callable[[int], None]], StageResult]) -> StageResult:
    """Run a stage function on a shard and pass its progress on; a resumed shard counts at once."""
    watch, end = _observer, ends()

    def progress(images: int) -> None:
        if end and end.is_set():
            raise Ended(stage)
        watch.advance(stage, images)

    result = work(progress)
    if result.resumed:
        watch.advance(stage, shard.samples)
    return result
