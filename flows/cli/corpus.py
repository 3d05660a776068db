"""Command label-corpus."""

from __future__ import annotations

from typing import Any

import typer

from flows.cli.fields import argument, option
from flows.cli.options import (
    MASKS,
    OWN_IMAGES,
    PIPELINE,
    DebugOption,
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


def _prepare(config: CorpusConfig) -> Prepared:
    from pnp_core.corpus import check_corpus

    warn(check_corpus(config))
    return runs("corpus", config)


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
    strict: StrictOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make masks for what is new or changed in a folder since the last run, and publish latest.json.

    Made to be run on a schedule. Earlier masks stay where they are; training jobs read the manifest that latest.json
    names, while the next run is at work. Without --out they are in runs/label-corpus-NAME, by the name of the source.
    """

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
