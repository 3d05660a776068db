"""Command verify."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import DebugOption, JsonOption
from flows.cli.running import Interruptible, one_line_errors
from pnp_core.text.visible import visible_json

if TYPE_CHECKING:
    from rich.console import Console

    from pnp_core.checks.output import Verification


WHAT_NEXT = {
    "run": "the command that made the folder makes again what is damaged or missing",
    "tables": "the command that made the folder makes again what is damaged or missing",
    "comparison": "the command that made the folder makes again what is damaged or missing",
    "corpus": "label-corpus makes masks, manifests and what they are made of again; reports of batches stay",
    "export": "an export is not written over where a file was changed: move it away, or export to another folder",
}


def verify(
    run: Annotated[
        str, typer.Argument(help="Run folder, corpus, export or tables: a path or any fsspec URL.", metavar="FOLDER")
    ],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Read every file that a command has left and say what is whole, damaged, missing or not ours.

    Nothing is changed. The command that made the folder makes again what is damaged. Exit code 1 when not all is whole.
    """
    from rich.console import Console

    from flows.cli.console import errors
    from flows.cli.progress import ProgressBars
    from pnp_core.checks.output import verify as verify_folder

    with one_line_errors(debug, kept="nothing was changed"), ProgressBars() as bars, Interruptible(bars):
        found = verify_folder(run, bars.counter("verify"))
        bars.end("verify")
    _show(found, errors if as_json else Console())
    if as_json:
        print(visible_json(found.as_json()))
    raise typer.Exit(0 if found.whole else 1)


def _show(found: Verification, console: Console) -> None:
    from rich.table import Table

    from flows.cli.console import SHOWN, shown
    from pnp_core.checks.output import STATES

    table = Table(title=f"Files of {shown(found.url)}: {found.what}")
    columns = [state for state in STATES if state != "unchecked" or found.number(state)]
    for column in ("part", *columns):
        table.add_column(column, justify="left" if column == "part" else "right")
    for part, counts in found.counts.items():
        table.add_row(part, *(str(counts[state] or "-") for state in columns))
    console.print(table)
    for problem in found.problems[:SHOWN]:
        console.print(f"[red]{problem.state}[/]: {shown(problem.path)}", soft_wrap=True)
    for path in found.strangers[:SHOWN]:
        console.print(f"[dim]not ours[/]: {shown(path)}", soft_wrap=True)
    if max(len(found.problems), len(found.strangers)) > SHOWN:
        console.print(f"the first {SHOWN} of each (--json has all)")
    if not found.number("whole") and found.whole:
        console.print("[yellow]unchecked[/]: a version that kept no digests made this, nothing could be compared")
    elif found.whole:
        console.print("[green]whole[/]: nothing of ours is damaged or missing")
    else:
        console.print(WHAT_NEXT[found.kind], soft_wrap=True)
