"""Command compare."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.options import DebugOption, JsonOption
from flows.cli.running import one_line_errors, warn
from pnp_core.text.visible import visible, visible_json


def compare(
    runs: Annotated[list[str], typer.Argument(help="Run folders, two or more: each a path or any fsspec URL.")],
    out: Annotated[str, typer.Option(help="Folder for the page: a path or any fsspec URL.")],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Lay finished runs on the same pictures side by side, in one page: methods, presets, before and after tuning.

    Nothing is computed anew. Pictures are matched by key, classes by name.
    """
    from rich.console import Console

    from flows.cli.console import errors
    from pnp_core.report.compare_page import compare_runs

    with one_line_errors(debug, kept="the same command makes the page"):
        done = compare_runs(runs, out)
        warn(
            [
                f"{number} pictures of '{run}' are not compared: not all others have them"
                for run, number in zip(done.runs, done.apart, strict=True)
                if number
            ]
        )
        if done.unlike:
            warn([f"{done.unlike} pictures have one name and are not the same: they are not compared"])
    console = errors if as_json else Console()
    console.print(f"{done.images} pictures in common, {100 * done.share:.1f}% of their pixels differ", highlight=False)
    place = visible(out.rstrip("/"))
    console.print(f"to look at  {place}/index.html (pnp-ovss view {place})", soft_wrap=True, markup=False)
    if as_json:
        print(visible_json(done.as_json()))
