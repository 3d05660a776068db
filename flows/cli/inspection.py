"""Commands that look at data: datasets, check, candidates."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.fields import argument, option
from flows.cli.options import DebugOption, Given, JsonOption, options_of, tell_root
from flows.cli.running import one_line_errors
from pnp_core.candidates.config import CandidatesConfig
from pnp_core.config import EvalConfig
from pnp_core.text.visible import visible_json


def datasets(as_json: JsonOption = False) -> None:
    """List the dataset cards."""
    from flows.cli.console import list_cards, show_cards
    from pnp_core.inputs.cards import available_cards, load_card

    list_cards([load_card(name) for name in available_cards()], show_cards, as_json)


def _data(dataset: str, given: str | None) -> str | None:
    """The folder of a dataset as given, or as told once, which is said."""
    from pnp_core.inputs.roots import data_of

    data = data_of(dataset, given)
    if data != given:
        tell_root(dataset, data)
    return data


@options_of(EvalConfig, argument("dataset"), option("data"), option("split"), option("ground_truth"))
def check(given: Given[EvalConfig], as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Verify a dataset on disk: complete, readable, sizes equal, labels in range, classes in the masks.

    Exit code 1 when not.
    """
    from rich.console import Console

    from flows.cli.console import errors, show_check
    from flows.cli.progress import ProgressBars
    from pnp_core.checks.dataset import check_dataset

    with one_line_errors(debug), ProgressBars() as bars:
        dataset, *said = (given.values.get(name) for name in ("dataset", "split", "ground_truth"))
        data = _data(dataset, given.values.get("data"))
        bars.begin("check", None)
        report = check_dataset(dataset, data, *said, progress=lambda n: bars.advance("check", n))
        bars.end("check")
    show_check(report, errors if as_json else Console())
    if as_json:
        print(visible_json(report.as_json()))
    raise typer.Exit(0 if report.ok else 1)


@options_of(CandidatesConfig, argument("file"), option("min_score"), option("top_k"), option("fallback"))
def candidates(
    given: Given[CandidatesConfig],
    dataset: Annotated[str, typer.Option(help="Dataset card whose classes the file names.")],
    data: Annotated[
        str | None, typer.Option(help="Folder of the dataset, where the classes of its card lie in a file there.")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Read a file of candidate classes and report what it holds and what had to be repaired."""
    from dataclasses import asdict

    from rich.console import Console

    from flows.cli.console import errors, show_candidates
    from pnp_core.checks.candidates_file import report_file
    from pnp_core.inputs.cards import load_card
    from pnp_core.inputs.readers import resolve_card

    with one_line_errors(debug):
        config = given.config(source="file")
        card = load_card(dataset)
        if card.classes_file:
            card = resolve_card(card, _data(dataset, data))
        report = report_file(config.file or "", card, config)
    show_candidates(report, errors if as_json else Console())
    if as_json:
        print(visible_json(asdict(report)))
