"""Commands that make benchmark tables: ablate, tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flows.cli.costing import say_cost
from flows.cli.fields import argument, option
from flows.cli.options import PIPELINE, TRACK, DebugOption, DryRunOption, Given, JsonOption, ParamOption, options_of
from flows.cli.run_folders import eval_out
from flows.cli.running import Prepared, execute, one_line_errors, runs, warn
from pnp_core.config import AblateConfig, EvalConfig, TablesConfig
from pnp_core.text.visible import visible, visible_json

if TYPE_CHECKING:
    from pnp_core.checks.run_cost import RunCost


@options_of(TablesConfig, argument("runs"), option("out"))
def tables(given: Given[TablesConfig], as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Make benchmark tables from finished runs' scores: Markdown, CSV, LaTeX and HTML.

    Nothing is computed: `pnp-ovss ablate` runs what a table needs and is missing.
    """
    from rich.console import Console

    from flows.cli.console import errors
    from pnp_core.tables.build import build_tables
    from pnp_core.tables.evaluations import usable_evaluations
    from pnp_core.tables.render import write_tables

    with one_line_errors(debug, kept="the same command makes the tables"):
        config = given.config()
        evaluations, warnings = usable_evaluations(config.runs)
        warn(warnings)
        made = build_tables(evaluations)
        files = write_tables(made, config.out)
    console = errors if as_json else Console()
    place = visible(config.out.rstrip("/"))
    console.print(f"{len(made.tables)} tables: {', '.join(table.name for table in made.tables)}", soft_wrap=True)
    console.print(f"to read  {place}/tables.md\nto look at  {place}/index.html", soft_wrap=True, markup=False)
    if as_json:
        print(visible_json({"out": config.out, "tables": [table.name for table in made.tables], "files": files}))


@options_of(
    AblateConfig,
    argument("dataset"),
    option("out", shown="runs/eval-CARD"),
    option("tables"),
    option("data"),
    option("split"),
    option("limit"),
    option("shards"),
    TRACK,
    *PIPELINE,
)
def ablate(
    given: Given[AblateConfig],
    param: ParamOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Evaluate the settings that benchmark tables need and a run folder has no scores of yet.

    Stored salience is used again: only a setting that changes it is asked of the model.
    """
    out = eval_out(given.values["dataset"])
    if dry_run:
        _say_missing(lambda: given.config(param, out=out), as_json, debug)
        return
    execute(lambda: _prepare(given.config(param, out=out)), _show, as_json, debug)


def _prepare(config: AblateConfig) -> Prepared:
    from pnp_core.runs.preflight import check_eval
    from pnp_core.tables.missing import missing_settings

    missing_settings(config)
    warn(check_eval(config.base))
    return runs("ablate", config)


def _show(summary: Any, console: Any) -> None:
    for place, miou in summary.made.items():
        score = "no score" if miou is None else f"mIoU {miou:.3f}"
        console.print(f"{visible(place)}: {score}", soft_wrap=True, markup=False, highlight=False)
    if not summary.made:
        console.print("nothing was missing")
    console.print(
        f"now: pnp-ovss tables {visible(summary.out)} --out DIR", soft_wrap=True, markup=False, highlight=False
    )


def _say_missing(configured: Callable[[], AblateConfig], as_json: bool, debug: bool) -> None:
    """Which settings are to be evaluated, and what that will take."""
    from pnp_core.tables.missing import missing_settings

    with one_line_errors(debug, kept="nothing was written"):
        config = configured()
        missing = missing_settings(config)
    if not as_json:
        for place, _ in missing:
            print(visible(place))
        print(f"{len(missing)} settings to evaluate")
    if missing:
        found = {"missing": [place for place, _ in missing]}
        say_cost(lambda: _cost(config, [setting for _, setting in missing]), as_json, debug, found)
    elif as_json:
        print(visible_json({"out": config.out, "missing": []}))


def _cost(config: AblateConfig, settings: list[EvalConfig]) -> RunCost:
    from pnp_core.checks.run_cost import eval_cost

    return eval_cost(config.base, settings)
