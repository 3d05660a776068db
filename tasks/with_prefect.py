"""Tasks by Prefect, inside one of its flows: the runtime where there is a server.

Tasks are neither cached nor persisted: what is done is known from the completion records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, TypeVar

from prefect import Task, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.artifacts import ProgressArtifacts
from tasks.runtime import Log, StageTask, may_pass, observed_by, observer, run_by
from tasks.time_limit import time_limit

R = TypeVar("R")


@contextmanager
def in_prefect() -> Iterator[None]:
    """Have the tasks of the block run by Prefect; for the body of a flow."""
    with run_by(PrefectRuntime()):
        yield


class PrefectRuntime:
    """A `Runtime` inside a flow run."""

    @property
    def log(self) -> Log:
        """Of the flow or task run."""
        return get_run_logger()

    def run(self, task: StageTask[..., R], arguments: tuple[Any, ...], named: dict[str, Any]) -> R:
        """Run a task as one of Prefect's."""
        return prefect_task(task)(*arguments, **named)

    def shown(self) -> AbstractContextManager[None]:
        """As progress artifacts of the flow run."""
        return observed_by(ProgressArtifacts(observer()))

    def leave_page(self, text: Callable[[], str], key: str, description: str) -> None:
        """As an artifact."""
        create_markdown_artifact(text(), key=key, description=description)

    def leave_table(self, rows: list[dict[str, Any]], key: str, description: str) -> None:
        """As an artifact."""
        create_table_artifact(rows, key=key, description=description)


def prefect_task(ours: StageTask[..., R]) -> Task[..., R]:
    """A task as Prefect's, with its attempts."""
    retries = ours.tries.attempts - 1
    return task(
        _limited(ours.fn, ours.tries.shard_seconds),
        name=ours.name,
        task_run_name=ours.run_name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retry_condition_fn=_worth_another,
        retries=retries,
        retry_delay_seconds=[ours.tries.delay(n + 1) for n in range(retries)] or None,
    )


def _limited(function: Callable[..., R], seconds: float | None) -> Callable[..., R]:
    """A function that fails when it takes too long, in the words of a run without Prefect."""
    if seconds is None:
        return function

    @wraps(function)
    def limited(*arguments: Any, **named: Any) -> R:
        with time_limit(seconds):
            return function(*arguments, **named)

    return limited


def _worth_another(_task: Any, _run: Any, state: Any) -> bool:
    return may_pass(state.result(raise_on_failure=False))
