"""How every command runs: Prefect kept quiet, one line for whatever goes wrong."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from pnp_core.config import PipelineConfig
from pnp_core.errors import PnpError


def quiet_prefect(debug: bool) -> None:
    """Settings Prefect reads at import; what the user has set stays."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if debug else "CRITICAL")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def fail(error: PnpError, debug: bool) -> NoReturn:
    """Print an error as one line and end with its exit code."""
    from rich.markup import escape

    from flows.cli.console import errors

    if debug:
        errors.print_exception()
    errors.print(f"[bold red]error[/]: {escape(str(error))}", soft_wrap=True)
    raise typer.Exit(error.exit_code)


@contextmanager
def one_line_errors(debug: bool) -> Iterator[None]:
    """Whatever goes wrong, a user gets one line; --debug shows the rest."""
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt as interruption:
        from flows.cli.console import errors

        errors.print("[yellow]stopped[/]: what is done is kept, the same command continues", soft_wrap=True)
        raise typer.Exit(143 if isinstance(interruption, Terminated) else 130) from interruption
    except PnpError as error:
        fail(error, debug)
    except Exception as error:
        message = " ".join(str(error).split())
        fail(PnpError(f"{type(error).__name__}: {message[:500]} (--debug shows where)"), debug)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it: the shard in the works is abandoned, all else is kept."""


@contextmanager
def termination_as_interruption() -> Iterator[None]:
    """Leave the block as by Ctrl-C when the process is told to end, so that everything is cleared up."""

    def stop(*_: object) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def warn(warnings: list[str]) -> None:
    """Print warnings, a line each."""
    from rich.markup import escape

    from flows.cli.console import errors

    for warning in warnings:
        errors.print(f"[yellow]warning[/]: {escape(warning)}", soft_wrap=True)


def execute(
    prepare: Callable[[], tuple[Callable[[Any], Any], PipelineConfig]],
    show: Callable[[Any, Any], None],
    as_json: bool,
    debug: bool,
) -> Any:
    """Check everything, run a flow under progress bars, print what came out and return it."""
    quiet_prefect(debug)
    with one_line_errors(debug):
        flow, config = prepare()
        from rich.console import Console

        from flows.cli.console import ProgressBars, errors
        from flows.temporary_server import temporary_server
        from tasks.runtime import observed_by

        with termination_as_interruption(), temporary_server(), ProgressBars() as bars, observed_by(bars):
            summary = flow(config)
        show(summary, errors if as_json else Console())
        if as_json:
            print(json.dumps(summary.as_json(), ensure_ascii=False), flush=True)
    return summary
