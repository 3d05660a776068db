"""How far a command is: bars in a terminal, a line now and then where there is none."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from flows.cli.console import STAGE_NAMES, UNITS, errors
from pnp_core.text.durations import duration

EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal."""
WINDOW = 300.0
"""Seconds that speed and time left are from: a batch or a trial may take a minute."""


def progress_line(task: Task) -> str:
    """How far a stage is: done of all, how fast, time left."""
    total = "" if task.total is None else f" of {task.total:.0f}"
    rate = f", {task.speed:.2g} {task.fields['unit']}/s" if task.speed else ""
    left = f", about {duration(task.time_remaining)} left" if task.time_remaining else ""
    return f"{task.description}: {task.completed:.0f}{total} {task.fields['unit']}{rate}{left}"


class ProgressBars:
    """Shows the stages' progress; an `Observer`."""

    def __init__(self, console: Console = errors, every: float = EVERY) -> None:
        """Prepare the bars.

        Args:
            every: seconds between two lines where there is no terminal, which bars could move in.
        """
        self._bars = Progress(
            TextColumn("{task.description:10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=WINDOW,
        )
        self._console, self._every = console, every
        self._tasks: dict[str, TaskID] = {}
        self._over = Event()

    def __enter__(self) -> ProgressBars:
        self._bars.start()
        if not self._console.is_terminal:
            Thread(target=self._say, name="progress", daemon=True).start()
        return self

    def _say(self) -> None:
        """A line now and then for each stage that is at work."""
        while not self._over.wait(self._every):
            for task in self._bars.tasks:
                if task.started and not task.finished and task.completed:
                    line = progress_line(task)
                    self._console.print(line, soft_wrap=True, markup=False, highlight=False)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._bars.stop()

    def begin(self, stage: str, total: int | None) -> None:
        """Add a bar, or start the stage's anew."""
        if stage in self._tasks:
            self._bars.reset(self._tasks[stage], total=total)
            return
        self._tasks[stage] = self._bars.add_task(
            STAGE_NAMES.get(stage, stage), total=total, unit=UNITS.get(stage, "pictures"), left="left"
        )

    def advance(self, stage: str, images: int) -> None:
        """Move a bar."""
        self._bars.advance(self._tasks[stage], images)

    def counter(self, stage: str) -> Callable[[int], None]:
        """Moves a bar of unknown length, which is added with the first step."""

        def count(images: int) -> None:
            if stage not in self._tasks:
                self.begin(stage, None)
            self.advance(stage, images)

        return count

    def end(self, stage: str) -> None:
        """Fill a bar: pictures set aside are done too."""
        if stage not in self._tasks:  # counted, and there was nothing to count
            return
        task = self._tasks[stage]
        total = self._bars.tasks[task].total
        done = total if total is not None else max(self._bars.tasks[task].completed, 1)
        self._bars.update(task, total=done, completed=done)
