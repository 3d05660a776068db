"""Command label-corpus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from flows.cli.options import (
    ConfidenceOption,
    DebugOption,
    ExcludeOption,
    FetchSecondsOption,
    FollowLinksOption,
    JsonOption,
    PipelineOptions,
    PngOption,
    StrictOption,
    build,
    given,
    names,
    with_pipeline_options,
)
from flows.cli.running import execute, fail, warn
from pnp_core.config import CorpusConfig, PipelineConfig
from pnp_core.errors import PnpError


def _prepare(values: dict[str, Any]) -> tuple[Callable[[Any], Any], PipelineConfig]:
    from pnp_core.corpus import check_corpus

    config = build(CorpusConfig, values)
    warn(check_corpus(config))
    from flows.corpus import label_corpus as flow

    return flow, config


@with_pipeline_options
def label_corpus(
    options: PipelineOptions,
    source: Annotated[str, typer.Argument(help="Folder that grows (recursive), or a bucket: any fsspec URL.")],
    classes: Annotated[str, typer.Option(help='Class names, separated by commas: "cat,dog,traffic light".')],
    out: Annotated[str, typer.Option(help="Output folder: a path or any fsspec URL.")],
    settle: Annotated[
        float | None, typer.Option(help="Seconds a file must have been left alone; younger ones wait. 60.")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(help="Quarantine larger pictures; 100 million, at most 178956970.")
    ] = None,
    follow_links: FollowLinksOption = None,
    exclude: ExcludeOption = None,
    fetch_seconds: FetchSecondsOption = None,
    png: PngOption = None,
    confidence: ConfidenceOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make masks for what is new or changed in a folder since the last run, and publish latest.json.

    Made to be run on a schedule. Earlier masks stay where they are; training jobs read the manifest that latest.json
    names, while the next run is at work.
    """
    own = {"source": source, "classes": names(classes), "out": out, "settle": settle, "png": png}
    own |= {"exclude": exclude, "follow_links": follow_links, "fetch_seconds": fetch_seconds}
    own |= {"salience": given(max_pixels=max_pixels), "masks": given(confidence=confidence)}

    def show(summary: Any, console: Any) -> None:
        from flows.cli.console import show_corpus

        show_corpus(summary, console)

    summary = execute(lambda: _prepare(options.values(own)), show, as_json, debug)
    if summary.images and not summary.labelled:
        fail(PnpError("nothing was labelled: every new picture was quarantined, see the reasons above"), False)
    if summary.damaged:
        fail(PnpError("what was published is damaged and could not be made again, see above"), False)
    if strict and summary.quarantined:
        raise typer.Exit(1)
