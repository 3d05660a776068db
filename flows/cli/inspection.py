"""Commands that look at data: datasets, check, candidates."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.options import DebugOption, JsonOption, MinScoreOption, TopKOption, build, given
from flows.cli.running import one_line_errors
from pnp_core.text.visible import visible_json


def datasets(as_json: JsonOption = False) -> None:
    """List the dataset cards."""
    from flows.cli.console import list_cards, show_cards
    from pnp_core.inputs.cards import available_cards, load_card

    list_cards([load_card(name) for name in available_cards()], show_cards, as_json)


def check(
    dataset: Annotated[str, typer.Argument(help="Dataset card, such as voc21; or a card file.")],
    data: Annotated[str, typer.Option(help="Folder of the dataset as distributed.")],
    split: Annotated[str | None, typer.Option(help="Split; the card's first when not given.")] = None,
    ground_truth: Annotated[
        str | None, typer.Option(help="Which form of the ground truth, where the card has several.")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Verify a dataset on disk: complete, readable, sizes equal, labels in range, classes in the masks.

    Exit code 1 when not.
    """
    from rich.console import Console

    from flows.cli.console import ProgressBars, errors, show_check
    from pnp_core.checks.dataset import check_dataset

    with one_line_errors(debug), ProgressBars() as bars:
        bars.begin("check", None)
        report = check_dataset(dataset, data, split, ground_truth, lambda n: bars.advance("check", n))
        bars.end("check")
    show_check(report, errors if as_json else Console())
    if as_json:
        print(visible_json(report.as_json()))
    raise typer.Exit(0 if report.ok else 1)


def candidates(
    file: Annotated[str, typer.Argument(help="JSON, JSON Lines, CSV or Parquet with classes per picture.")],
    dataset: Annotated[str, typer.Option(help="Dataset card whose classes the file names.")],
    min_score: MinScoreOption = None,
    top_k: TopKOption = None,
    fallback: Annotated[
        str, typer.Option(help="When no class scores enough: best, first (authors), background or none.")
    ] = "best",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Read a file of candidate classes and report what it holds and what had to be repaired."""
    from dataclasses import asdict

    from rich.console import Console

    from flows.cli.console import errors, show_candidates
    from pnp_core.candidates.config import CandidatesConfig
    from pnp_core.checks.candidates_file import report_file
    from pnp_core.inputs.cards import load_card

    chosen = {"source": "file", "file": file, "fallback": fallback, "min_score": min_score, "top_k": top_k}
    with one_line_errors(debug):
        report = report_file(file, load_card(dataset), build(CandidatesConfig, given(**chosen)))
    show_candidates(report, errors if as_json else Console())
    if as_json:
        print(visible_json(asdict(report)))
