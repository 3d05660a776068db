"""Tasks in this process, with no server: the runtime where nobody chose another one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import monotonic, sleep
from typing import Any, TypeVar

from pnp_core.errors import in_words
from pnp_core.text.visible import visible
from tasks.runtime import Ended, Log, StageTask, ends, may_pass
from tasks.time_limit import time_limit

R = TypeVar("R")
LOGGER = "pnp_ovss"

_log = logging.getLogger(LOGGER)
_log.addHandler(logging.NullHandler())  # whoever wants to read it says where


class Plain:
    """A `Runtime` without Prefect. What people see of a run are its files, its log and its observer."""

    @property
    def log(self) -> Log:
        """Python's own logging."""
        return _log

    def run(self, task: StageTask[..., R], arguments: tuple[Any, ...], named: dict[str, Any]) -> R:
        """Run a task here, again where it fails."""
        tries, attempt = task.tries, 1
        while True:
            try:
                start = monotonic()
                with time_limit(tries.shard_seconds):
                    result = task.fn(*arguments, **named)
                self.log.debug("task %s: %.2f s", task.name, monotonic() - start)
                return result
            except Exception as error:
                if attempt == tries.attempts or not may_pass(error):
                    raise
                self.log.warning(
                    "%s failed, attempt %d of %d: %s", task.name, attempt, tries.attempts, visible(in_words(error))
                )
            _wait(tries.delay(attempt))
            attempt += 1

    def shown(self) -> AbstractContextManager[None]:
        """Nowhere but with the observer."""
        return nullcontext()

    def leave_page(self, text: Callable[[], str], key: str, description: str) -> None:
        """The run folder has it too."""

    def leave_table(self, rows: list[dict[str, Any]], key: str, description: str) -> None:
        """The run folder has it too."""


def _wait(seconds: float) -> None:
    """Until the next attempt, unless what this is beside ends first."""
    if not (end := ends()):
        sleep(seconds)
    elif end.wait(seconds):
        raise Ended
