"""How every command runs: with Prefect where somebody can see it, and kept quiet; one line for whatever goes wrong."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import current_thread, main_thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from flows.cli.loudness import is_verbose
from pnp_core.config import PipelineConfig
from pnp_core.errors import PnpError
from pnp_core.text.visible import visible, visible_json

if TYPE_CHECKING:
    from tasks.runtime import Observer

Run = Callable[[str, PipelineConfig], Any]
"""Runs a pipeline by the name of its flow, and gives its summary."""
Prepared = tuple[Callable[[Run], Any], PipelineConfig]
"""What a command does with it, and a configuration that says who works."""


def runs(name: str, config: PipelineConfig) -> Prepared:
    """For a command that runs one pipeline."""
    return lambda run: run(name, config), config


def quiet_prefect(debug: bool) -> None:
    """Settings Prefect reads at import; what the user has set stays."""
    debug = debug or is_verbose()
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if debug else "CRITICAL")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def fail(error: PnpError, debug: bool) -> NoReturn:
    """Print an error as one line and end with its exit code."""
    from flows.cli.console import failures, shown

    if (debug or is_verbose()) and sys.exc_info()[0]:
        failures.print(visible(traceback.format_exc(), lines=True), markup=False, soft_wrap=True)
    failures.print(f"[bold red]error[/]: {shown(str(error))}", soft_wrap=True)
    raise typer.Exit(error.exit_code)


@contextmanager
def one_line_errors(debug: bool, kept: str = "what is done is kept, the same command continues") -> Iterator[None]:
    """Whatever goes wrong, a user gets one line; --debug shows the rest. `kept` is said when it was stopped."""
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt as interruption:
        from flows.cli.console import failures

        failures.print(f"[yellow]stopped[/]: {kept}", soft_wrap=True)
        raise typer.Exit(143 if isinstance(interruption, Terminated) else 130) from interruption
    except PnpError as error:
        fail(error, debug)
    except Exception as error:
        message = " ".join(str(error).split())
        fail(PnpError(f"{type(error).__name__}: {message[:500]} (--debug shows where)"), debug)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it: the shard in the works is abandoned, all else is kept."""


class Interruptible:
    """Leaves the block when the process is told to end, so that everything is cleared up; an `Observer`.

    An exception that a signal raises can be lost where Python or a library catches all of them; so it is raised once
    more with the next picture that is done.
    """

    def __init__(self, passed_to: Observer) -> None:
        self._next = passed_to
        self._told: type[KeyboardInterrupt] | None = None

    def __enter__(self) -> Interruptible:
        self._before = {sign: signal.signal(sign, self._stop) for sign in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _listen(self) -> None:
        """Take SIGTERM back from Prefect: its own handler during a flow raises once and remembers nothing."""
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, self._stop)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sign, handler in self._before.items():
            signal.signal(sign, handler)

    def _stop(self, sign: int, _: object) -> NoReturn:
        self._told = Terminated if sign == signal.SIGTERM else KeyboardInterrupt
        raise self._told

    def _check(self) -> None:
        if self._told:
            raise self._told

    def begin(self, stage: str, total: int | None) -> None:
        """A stage starts."""
        self._listen()
        self._check()
        self._next.begin(stage, total)

    def advance(self, stage: str, images: int) -> None:
        """So many more pictures are done."""
        self._check()
        self._next.advance(stage, images)

    def end(self, stage: str) -> None:
        """A stage is over."""
        self._check()
        self._next.end(stage)


def warn(warnings: list[str]) -> None:
    """Print warnings, a line each."""
    from flows.cli.console import errors, shown

    for warning in warnings:
        errors.print(f"[yellow]warning[/]: {shown(warning)}", soft_wrap=True)


@contextmanager
def _runner(config: PipelineConfig) -> Iterator[Run]:
    """Who runs pipelines: this process alone where nobody would see a flow run, else Prefect."""
    from flows.pipelines import pipeline
    from flows.server.named import is_server_named
    from flows.server.stack import use_stack

    use_stack()
    with_prefect = config.dispatch.mode != "inline" or is_server_named()
    with _server() if with_prefect else nullcontext():
        yield lambda name, configured: pipeline(name, with_prefect)(configured)


def _server() -> AbstractContextManager[None]:
    from flows.server.temporary_server import temporary_server

    return temporary_server()


def execute(
    prepare: Callable[[], Prepared],
    show: Callable[[Any, Any], None],
    as_json: bool,
    debug: bool,
) -> Any:
    """Check everything, run pipelines under progress bars, print what came out and return it."""
    quiet_prefect(debug)
    with one_line_errors(debug):
        from rich.console import Console

        from flows.cli.console import errors, logs_shown, warnings_shown

        # Libraries are imported and weights are read for seconds before there is anything to count.
        with errors.status("preparing: libraries, weights, pictures"):
            work, config = prepare()
        from flows.cli.progress import ProgressBars
        from tasks.runtime import observed_by

        bars = ProgressBars()
        shown = logs_shown() if debug or is_verbose() else warnings_shown()
        with Interruptible(bars) as interruptible, _runner(config) as run, bars, observed_by(interruptible), shown:
            summary = work(run)
        show(summary, errors if as_json else Console())
        if summary.untracked:
            warn([summary.untracked])
        if as_json:
            left = {"untracked": summary.untracked} if summary.untracked else {}
            print(visible_json({**summary.as_json(), **left}), flush=True)
    return summary
