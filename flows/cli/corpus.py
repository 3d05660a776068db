"""Command label-corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from flows.cli.costing import say_cost
from flows.cli.fields import argument, option
from flows.cli.options import (
    MASKS,
    OWN_IMAGES,
    PIPELINE,
    DebugOption,
    DryRunOption,
    Given,
    JsonOption,
    ParamOption,
    StrictOption,
    options_of,
)
from flows.cli.run_folders import corpus_out
from flows.cli.running import Prepared, execute, fail, runs, warn
from pnp_core.config import CorpusConfig
from pnp_core.errors import PnpError

if TYPE_CHECKING:
    from pnp_core.checks.run_cost import RunCost


def _prepare(config: CorpusConfig) -> Prepared:
    from pnp_core.corpus import check_corpus

    warn(check_corpus(config))
    return runs("corpus", config)


def _cost(config: CorpusConfig) -> RunCost:
    from pnp_core.checks.run_cost import corpus_cost

    return corpus_cost(config)


@options_of(
    CorpusConfig,
    argument("source"),
    option("classes"),
    option("out", shown="runs/label-corpus-NAME"),
    option("settle"),
    option("salience.max_pixels"),
    *OWN_IMAGES,
    *MASKS,
    *PIPELINE,
)
def label_corpus(
    given: Given[CorpusConfig],
    param: ParamOption = None,
    dry_run: DryRunOption = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make masks for what is new or changed in a folder since the last run, and publish latest.json.

    Made to be run on a schedule. Earlier masks stay where they are; training jobs read the manifest that latest.json
    names, while the next run is at work. Without --out they are in runs/label-corpus-NAME, by the name of the source.
    """
    if dry_run:
        say_cost(lambda: _cost(given.config(param)), as_json, debug)
        return

    def show(summary: Any, console: Any) -> None:
        from flows.cli.console import show_corpus

        show_corpus(summary, console)

    out = corpus_out(given.values["source"])
    summary = execute(lambda: _prepare(given.config(param, out=out)), show, as_json, debug)
    if summary.images and not summary.labelled:
        fail(PnpError("nothing was labelled: every new picture was quarantined, see the reasons above"), False)
    if summary.damaged:
        fail(PnpError("what was published is damaged and could not be made again, see above"), False)
    if strict and summary.quarantined:
        raise typer.Exit(1)
