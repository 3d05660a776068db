"""How much a command says: `-v` and `-q`, before the command or after it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from pnp_core.errors import UsageError

VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show what is done, line by line, and tracebacks of errors.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show results and errors only: no progress, no warnings, no tips.")
]
_asked = {"verbose": False, "quiet": False}


def is_verbose() -> bool:
    """Whether the command that runs was asked for debug lines and tracebacks."""
    return _asked["verbose"]


def is_quiet() -> bool:
    """Whether the command that runs was asked for results and errors alone."""
    return _asked["quiet"]


def begin(verbose: bool, quiet: bool) -> None:
    """What stands before the command holds; what an earlier command in this process was asked for does not."""
    _asked.update(verbose=verbose, quiet=quiet)


def loud_or_quiet(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take both options too, where most people type them."""

    @wraps(command)
    def wrapper(*arguments: Any, verbose: bool, quiet: bool, **named: Any) -> None:
        from flows.cli.running import fail

        _asked.update(verbose=verbose or is_verbose(), quiet=quiet or is_quiet())
        if is_verbose() and is_quiet():
            fail(UsageError("--verbose and --quiet are opposites: leave one out"), debug=False)
        command(*arguments, **named)

    own = inspect.signature(command, eval_str=True).parameters.values()
    more = (("verbose", VerboseOption), ("quiet", QuietOption))
    both = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind) for n, kind in more]
    # Typer reads signature and annotations.
    wrapper.__dict__["__signature__"] = inspect.Signature([*own, *both])
    wrapper.__annotations__ = {p.name: p.annotation for p in (*own, *both)}
    del wrapper.__dict__["__wrapped__"]
    return wrapper
