"""What a person sees in the terminal: progress bars, tables, warnings, one-line errors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.loudness import is_quiet, is_verbose
from pnp_core.data import RunSummary, Summary
from pnp_core.text.visible import visible, visible_json
from pnp_core.tuning.space import shown_value

if TYPE_CHECKING:  # these import torch, which takes seconds
    from pnp_core.checks.candidates_file import FileReport
    from pnp_core.checks.dataset import CheckReport
    from pnp_core.corpus import CorpusSummary
    from pnp_core.inputs.cards import DatasetCard
    from pnp_core.tuning.result import TuneSummary

SHOWN = 20
"""Problems printed; --json has all."""
STAGE_NAMES = {
    "shard": "Sharding",
    "salience": "Salience",
    "masks": "Masks",
    "png": "PNG files",
    "scores": "Scores",
    "check": "Checking",
    "maps": "Maps",
    "pictures": "Pictures",
    "search": "Search",
    "compare": "Comparing",
    "settings": "Settings",
    "export": "Exporting",
    "verify": "Verifying",
}
UNITS = {"search": "trials", "settings": "settings", "verify": "files"}
"""What a stage counts, where that is not pictures."""


class _Messages(Console):
    """Says nothing under `--quiet`."""

    quiet = property(lambda _: is_quiet(), lambda _, value: None)


errors = _Messages(stderr=True, highlight=False)
"""Progress and messages; standard output belongs to the result."""
failures = Console(stderr=True, highlight=False)
"""Why a command ends early; whatever it was asked to leave out."""


def shown(text: str) -> str:
    r"""A text from data for `Console.print`: what acts or hides in it is spelled out, and markup is none.

    >>> print(shown("a\x1b[2J[red]"))
    a\x1b[2J\[red]
    """
    return escape(visible(text))


class _OnConsole(logging.Handler):
    """Prints a log above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """A line each."""
        errors.print(visible(self.format(record), lines=True), style="dim", markup=False, soft_wrap=True)


@contextmanager
def logs_shown() -> Iterator[None]:
    """Show what a run without Prefect has to say while the block runs."""
    from tasks.plain import LOGGER

    handler = _OnConsole()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    log = logging.getLogger(LOGGER)
    log.addHandler(handler)
    before = log.level
    log.setLevel(logging.DEBUG if is_verbose() else logging.INFO)
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(handler)


class _Warning(logging.Handler):
    """Prints a log as warnings are, above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """A line each."""
        errors.print(f"[yellow]warning[/]: {shown(record.getMessage())}", soft_wrap=True)


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Show what everybody should know of a run's memory while the block runs."""
    from pnp_core.stages.fitting import LOGGER

    handler, log = _Warning(), logging.getLogger(LOGGER)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _scores_table(scores: dict[str, Any], part: str) -> Table:
    """Scores for people; `part` says how much of the split they are of, empty when that is all."""
    scored = part or f"{scores['images_scored']} pictures"
    void = scores["pixels_ignored"] / max(scores["pixels"] + scores["pixels_ignored"], 1)
    table = Table(
        title=f"mIoU {_number(scores['miou_present'])} over present classes ({_number(scores['miou_union'])} over all "
        f"with a union), pixel accuracy {_number(scores['pixel_accuracy'])}",
        caption=f"{scored}, {scores['classes_present']} of {scores['classes']} classes "
        f"present, {void:.1%} of the pixels void",
        min_width=44,
    )
    table.add_column("class")
    table.add_column("IoU", justify="right")
    for name, iou in scores["per_class_iou"].items():
        if iou is not None:
            table.add_row(shown(name), _number(iou))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _stages_table(summary: Summary) -> Table:
    table = Table(title="Stages")
    for column in ("stage", "shards", "resumed", "pictures", "quarantined", "seconds", "pictures/s"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for name, stage in summary.stages.items():
        rate = stage.images_per_second
        table.add_row(
            name,
            str(stage.shards),
            str(stage.shards_resumed),
            str(stage.images),
            str(stage.quarantined),
            f"{stage.seconds:.1f}",
            f"{rate:.1f}" if rate else "-",
        )
    return table


def show_summary(summary: RunSummary, console: Console) -> None:
    """Print the tables, the counts and where the results lie."""
    if summary.scores:
        console.print(_scores_table(summary.scores, summary.part))
    for warning in summary.scores.get("warnings", ()):
        console.print(f"[yellow]warning[/]: {shown(warning)}", soft_wrap=True)
    console.print(_stages_table(summary))
    console.print(
        f"{summary.images} pictures: {summary.labelled} labelled ({summary.resumed} of them in an earlier run), "
        f"{summary.quarantined} quarantined"
    )
    out = shown(summary.out.rstrip("/"))
    console.print(
        f"masks          {shown(summary.masks)} (Parquet; its name stands for model and settings)", soft_wrap=True
    )
    if "png" in summary.stages:
        console.print(f"PNG files      {out}/png/{PurePosixPath(summary.masks).name}", soft_wrap=True)
    if summary.quarantined:
        console.print(f"quarantine     {out}/quarantine/ (what and why)", soft_wrap=True)
        _show_reasons(summary, console)
    _show_mended(summary, console)
    console.print(f"contact sheet  {out}/contact_sheet.png", soft_wrap=True)
    console.print(f"report         {out}/report/index.html (pnp-ovss view {out})", soft_wrap=True)


def show_corpus(summary: CorpusSummary, console: Console) -> None:
    """Print what is new in a corpus, and where it is published."""
    if summary.stages:
        console.print(_stages_table(summary))
    console.print(
        f"{summary.images} new or changed pictures: {summary.labelled} labelled, {summary.quarantined} quarantined "
        f"({summary.failed} of them to be tried again); {summary.waiting} may still be written to and wait, "
        f"{summary.deleted} are gone; {summary.in_corpus} in all; {summary.ignored} files passed over, no pictures"
    )
    _show_mended(summary, console)
    for what in summary.damaged:
        console.print(f"[yellow]warning[/]: {shown(what)}", soft_wrap=True)
    out = shown(summary.out.rstrip("/"))
    console.print(f"latest         {out}/latest.json", soft_wrap=True)
    console.print(f"manifest       {out}/{shown(summary.manifest)}", soft_wrap=True)
    from pnp_core.inputs.sources.links import links_passed_over

    for warning in [*summary.left_out, *links_passed_over(summary.links)]:
        console.print(f"[yellow]warning[/]: {shown(warning)}", soft_wrap=True)
    if summary.quarantined:
        _show_reasons(summary, console)


def _show_mended(summary: Summary, console: Console) -> None:
    for file in summary.mended[:SHOWN]:
        console.print(f"[yellow]warning[/]: was damaged, and was made again: {shown(file)}", soft_wrap=True)
    if len(summary.mended) > SHOWN:
        console.print(f"... and {len(summary.mended) - SHOWN} more (--json has all)")


def _show_reasons(summary: Summary, console: Console) -> None:
    console.print("[yellow]warning[/]: quarantined pictures, by reason:", soft_wrap=True)
    for reason, number in summary.reasons.items():
        console.print(f"  {number} x {shown(reason)}", soft_wrap=True)


def show_tuning(summary: TuneSummary, console: Console) -> None:
    """Print what was chosen, what the reward is worth where masks tell, and where the results lie."""
    console.print(_choice_table(summary))
    if summary.comparison:
        console.print(_comparison_table(summary.comparison))
    console.print(_stages_table(summary))
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in summary.search_seconds.items())
    console.print(
        f"{summary.trials} trials of {summary.settings} different settings on "
        f"{summary.images - summary.quarantined - summary.without_classes} pictures "
        f"({summary.pairs} pictures x classes); of the search: {parts}",
        soft_wrap=True,
    )
    if summary.equal_rewards:
        console.print("[yellow]warning[/]: all settings have the same reward: it cannot tell them apart here")
    if summary.without_classes:
        console.print(f"[yellow]warning[/]: {summary.without_classes} pictures have no class and reward nothing")
    of = ", all layers and heads" if "layer" in summary.best else ""
    console.print(f"cache          {summary.cache_bytes_per_image / 1000:.1f} kB per picture{of}")
    out = shown(summary.out.rstrip("/"))
    _show_mended(summary, console)
    if summary.quarantined:
        console.print(f"quarantine     {out}/quarantine/ (what and why)", soft_wrap=True)
        _show_reasons(summary, console)
    console.print(f"plots          {out}/tuning.png", soft_wrap=True)
    console.print(f"report         {out}/report/index.html (pnp-ovss view {out})", soft_wrap=True)
    console.print(f"best setting   {out}/best.yaml  (for --config of eval and label)", soft_wrap=True)


def _choice_table(summary: TuneSummary) -> Table:
    table = Table(title="Chosen without masks")
    for name in summary.best:
        table.add_column(name, justify="right")
    table.add_row(*(f"{v:.4f}" if name == "reward" else shown_value(v) for name, v in summary.best.items()))
    return table


def _comparison_table(found: dict[str, Any]) -> Table:
    how = "full method" if found["what"] == "full" else "threshold and blur only"
    table = Table(title=f"mIoU of what was tried, not used in the choice ({how}, {found['images']} pictures)")
    for column in ("chosen", "best", "median", "rank correlation"):
        table.add_column(column, justify="right")
    rank = found["rank_correlation"]
    figures = (_number(found[name]) for name in ("miou_chosen", "miou_best", "miou_median"))
    table.add_row(*figures, "-" if rank is None else f"{rank:+.2f}")
    return table


def list_cards(cards: Sequence[Any], show: Callable[[Any, Console], None], as_json: bool) -> None:
    """Print cards for people; with `as_json` those go to standard error, and the facts to standard output."""
    show(cards, errors if as_json else Console())
    if as_json:
        print(visible_json([asdict(c) if is_dataclass(c) else c.model_dump(mode="json") for c in cards]))


def show_cards(cards: Sequence[DatasetCard], console: Console) -> None:
    """Print the dataset cards as a table."""
    table = Table(title="Datasets", caption="the first split is the default; `check` says what --data must hold")
    for column in ("name", "classes", "splits", "title"):
        table.add_column(column, justify="right" if column == "classes" else "left", no_wrap=column == "name")
    for card in cards:
        table.add_row(card.name, str(card.number_of_classes or "yours"), " ".join(card.splits), card.title)
    console.print(table)


def show_check(report: CheckReport, console: Console) -> None:
    """Print what a check of a dataset found."""
    console.print(f"{shown(report.identity)}: {report.images} pictures, {report.usable} usable", soft_wrap=True)
    for problem in report.problems[:SHOWN]:
        console.print(f"[red]problem[/]: {shown(problem)}", soft_wrap=True)
    if len(report.problems) > SHOWN:
        console.print(f"... and {len(report.problems) - SHOWN} more (--json has all)")
    for remark in report.remarks[:SHOWN]:
        console.print(f"[yellow]remark[/]: {shown(remark)}", soft_wrap=True)
    if len(report.remarks) > SHOWN:
        console.print(f"... and {len(report.remarks) - SHOWN} more (--json has all)")
    if report.ok:
        console.print("[green]all well[/]: complete, readable, sizes equal, labels in range")


def show_candidates(report: FileReport, console: Console) -> None:
    """Print what a file of candidate classes holds."""
    for key, repairs in report.repairs[:SHOWN]:
        console.print(f"[yellow]repaired[/]: {shown(key)}: {shown('; '.join(repairs))}", soft_wrap=True)
    if len(report.repairs) > SHOWN:
        console.print(f"... and {len(report.repairs) - SHOWN} more (--json has all)")
    kept = "-" if report.kept is None else f"{report.kept:.2f}"
    console.print(
        f"{report.entries} entries, {kept} classes kept on average, {report.fallbacks} by the fallback, "
        f"{len(report.repairs)} needed repair"
    )


def show_review(counts: dict[str, Any], console: Console) -> None:
    """Print what was decided on the masks of a run, of all and by class."""
    table = Table(title="Decided in the report, by pictures")
    table.add_column("class")
    states = list(counts["pictures"])
    for state in states:
        table.add_column(state, justify="right")
    table.add_row("all", *(f"{counts['pictures'][state]:,}" for state in states), end_section=True)
    for name, numbers in counts["classes"].items():
        if any(numbers.values()):
            table.add_row(shown(name), *(f"{numbers[state]:,}" for state in states))
    console.print(table)
