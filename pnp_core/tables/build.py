"""From evaluations to tables. A cell shows one evaluation; where there are several, it shows them side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from pnp_core.frozen import Config
from pnp_core.inputs.cards import available_cards
from pnp_core.masks.config import MaskConfig
from pnp_core.runs.record import RunRecord
from pnp_core.storage.run_folder import sha256
from pnp_core.tables.evaluations import Evaluation, setting_key
from pnp_core.tables.studies import STUDIES, Study, Variant

NOTHING = "-"
PARTIAL = "†"
UNVERIFIED = "?"


class Published(Config):
    """Numbers of somebody else."""

    method: str
    source: str
    verified: bool
    """Whether the numbers were compared with the source."""
    note: str = ""
    miou: dict[str, float]
    """Per cent, by dataset card."""


@cache
def published() -> tuple[Published, ...]:
    """What others have published, from published.yaml."""
    text = (files("pnp_core.tables") / "published.yaml").read_text("utf-8")
    return tuple(Published.model_validate(entry) for entry in yaml.safe_load(text))


@dataclass(frozen=True)
class Entry:
    """A number in a cell, and where it is from.

    Attributes:
        text: as it is shown, with its marks.
        value: as it was measured: mIoU as a share, None when it is missing.
        source: name of the source, see `Source`.
    """

    text: str
    value: float | None
    source: str


Cell = tuple[Entry, ...]
"""Empty when there is no such run."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings."""

    name: str
    title: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    heat: bool = False
    caption: str = ""


@dataclass(frozen=True)
class Source:
    """Where numbers are from: a run, or a paper."""

    name: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tables:
    """All tables of some runs, and the sources of their numbers."""

    tables: tuple[Table, ...]
    sources: tuple[Source, ...]


def build_tables(evaluations: Sequence[Evaluation]) -> Tables:
    """Every table that the evaluations have numbers for."""
    mains = [e for e in evaluations if e.main]
    known: dict[str, list[Evaluation]] = defaultdict(list)
    for evaluation in evaluations:
        known[evaluation.key].append(evaluation)
    tables = [_main_table([e for e in mains if not e.config.only_classes])]
    for study in STUDIES.values():
        tables += _study_tables(study, mains, known)
    if mains:
        tables.append(_speed_table(mains))
    used = {entry.source for table in tables for _, cells in table.rows for cell in cells for entry in cell}
    sources = [_source(e) for e in evaluations] + [_paper(p) for p in published()]
    return Tables(tuple(tables), tuple(s for s in sources if s.name in used))


def source_name(evaluation: Evaluation) -> str:
    """A few digits that stay the same whatever else is in the tables."""
    return sha256(evaluation.url.encode())[:8]


def _source(evaluation: Evaluation) -> Source:
    record, config = evaluation.record, evaluation.config
    commit, revision = record.commit, record.weights_revision
    facts = {
        "run": evaluation.run,
        "evaluation": record.evaluation,
        "commit": commit,
        "weights": f"{config.method.describe().weights}@{revision}",
        "images": evaluation.images,
        "partial": evaluation.partial,
    }
    text = (
        f"run {evaluation.run}, evaluation {facts['evaluation']}, {describe(evaluation)}; "
        f"commit {(commit or 'unknown')[:12]}, weights {facts['weights']}, {evaluation.images} pictures scored"
    )
    if not evaluation.scores:
        text += "; its scores are missing"
    if evaluation.partial:
        text += f"; {PARTIAL} {evaluation.partial}"
    return Source(source_name(evaluation), text, facts)


def describe(evaluation: Evaluation) -> str:
    """The setting in a few words."""
    config = evaluation.config
    masks, score = config.masks, config.score
    renamed = evaluation.record.card.renamed if config.salience.words == "authors" else 0
    parts = [
        config.title + (f" ({', '.join(config.only_classes)})" if config.only_classes else ""),
        config.ground_truth,
        f"the authors' words for {renamed} classes" if renamed else None,
        *config.method.describe().settings,
        *(_cuts(masks) if config.method.thresholds else ()),
        "no CRF" if masks.crf.name == "off" else None,
        "mean over the union" if score.mean == "union" else None,
        "void as background" if score.void_as_background else None,
    ]
    return ", ".join(part for part in parts if part)


def _cuts(masks: MaskConfig) -> tuple[str, ...]:
    """How maps become scores, for methods that have such settings."""
    ties = ", ties kept" if masks.ties == "keep" else ""
    return f"threshold {masks.threshold:g}{ties}", f"blur {masks.blur:g}", f"background {masks.background}"


def _paper(paper: Published) -> Source:
    doubt = "" if paper.verified else f"; {UNVERIFIED} numbers not compared with the source"
    note = f"; {paper.note}" if paper.note else ""
    return Source(
        sha256(paper.method.encode())[:8], f"{paper.method}: {paper.source}{note}{doubt}", {"run": paper.method}
    )


def _entry(evaluation: Evaluation) -> Entry:
    mark = PARTIAL if evaluation.partial else ""
    text = NOTHING if evaluation.miou is None else f"{100 * evaluation.miou:.1f}{mark}"
    return Entry(text, evaluation.miou, source_name(evaluation))


def model_name(evaluation: Evaluation) -> str:
    """Model, weights, resolution, and how candidates are chosen: what a row of the main table is."""
    config = evaluation.config
    return f"{config.method.describe().row}, {config.salience.candidates.source}"


def _dataset_name(evaluation: Evaluation) -> str:
    card, only = evaluation.record.card, evaluation.config.only_classes
    split = "" if card.split == card.default_split else f" {card.split}"
    return f"{card.name}{split}" + (f", {len(only)} classes" if only else "")


def _main_table(mains: Sequence[Evaluation]) -> Table:
    ours: dict[str, dict[str, list[Evaluation]]] = defaultdict(lambda: defaultdict(list))
    for evaluation in mains:
        ours[model_name(evaluation)][_dataset_name(evaluation)].append(evaluation)
    known = [name for paper in published() for name in paper.miou if name in available_cards()]
    columns = tuple(dict.fromkeys([*(name for row in ours.values() for name in row), *known]))
    rows = [(name, tuple(tuple(map(_entry, row.get(column, ()))) for column in columns)) for name, row in ours.items()]
    rows += [(paper.method, tuple(_published_cell(paper, column) for column in columns)) for paper in published()]
    caption = (
        "mIoU in per cent; of ours the backbone, weights, resolution and the source of candidate classes. Labels: "
        "the image-level labels of each picture are known, which published protocols do not assume."
    )
    return Table("main", "Main table", "method", columns, tuple(rows), caption=caption)


def _published_cell(paper: Published, column: str) -> Cell:
    value = paper.miou.get(column)
    if value is None:
        return ()
    mark = "" if paper.verified else UNVERIFIED
    return (Entry(f"{value:.1f}{mark}", value / 100, _paper(paper).name),)


def _variants(study: Study, main: Evaluation) -> list[tuple[Variant, str]]:
    """The cells of a study around an evaluation, with their settings' keys."""
    return [(v, setting_key(v.config, main.facts)) for v in study.variants(main.config, main.facts)]


def _study_tables(study: Study, mains: Sequence[Evaluation], known: dict[str, list[Evaluation]]) -> Iterable[Table]:
    """One table with a column per run, or one per run where both axes vary. Less than two cells are no table."""
    bases = []
    for main in mains:
        cells = {(v.row, v.column): _of_run(main, known.get(key, ())) for v, key in _variants(study, main)}
        if sum(map(bool, cells.values())) > 1 or (study.name == "subsets" and any(cells.values())):
            bases.append((main, cells))
    if not bases:
        return []
    if study.columns:
        return [_grid(study, main, cells, number) for number, (main, cells) in enumerate(bases, 1)]
    rows = tuple(dict.fromkeys(row for _, cells in bases for row, _ in cells))
    table = [(row, tuple(tuple(map(_entry, cells.get((row, ""), ()))) for _, cells in bases)) for row in rows]
    columns = tuple(_distinct([(_column_name(main), main.run) for main, _ in bases]))
    caption = f"mIoU in per cent. {study.note}".rstrip()
    return [Table(study.name, study.title, study.rows, columns, tuple(table), study.heat, caption)]


def _of_run(main: Evaluation, found: Sequence[Evaluation]) -> tuple[Evaluation, ...]:
    """The run's own evaluation of a setting; those of other runs only where it has none."""
    own = tuple(e for e in found if e.folder == main.folder)
    return own or tuple(found)


def _column_name(main: Evaluation) -> str:
    return f"{_dataset_name(main)}: {model_name(main)}"


def _distinct(names: Sequence[tuple[str, str]]) -> list[str]:
    """Names, with the run behind those that are not the only one."""
    plain = [name for name, _ in names]
    return [f"{name} ({run})" if plain.count(name) > 1 else name for name, run in names]


def _grid(study: Study, main: Evaluation, cells: dict[tuple[str, str], tuple[Evaluation, ...]], number: int) -> Table:
    rows, columns = (tuple(dict.fromkeys(place[axis] for place in cells)) for axis in (0, 1))
    table = [(row, tuple(tuple(map(_entry, cells.get((row, column), ()))) for column in columns)) for row in rows]
    name = study.name if number == 1 else f"{study.name}-{number}"
    caption = f"{_column_name(main)}, run {main.run}; mIoU in per cent. Down: {study.rows}; across: {study.columns}."
    return Table(name, study.title, f"{study.rows} \\ {study.columns}", columns, tuple(table), study.heat, caption)


_SPEEDS: dict[str, Callable[[RunRecord], float | None]] = {
    "salience, pictures/s": lambda record: record.rates.get("salience"),
    "masks, pictures/s": lambda record: record.rates.get("masks"),
    "memory, GB": lambda record: _gigabytes(record, "host"),
    "GPU memory, GB": lambda record: _gigabytes(record, "device"),
}


def _gigabytes(record: RunRecord, where: str) -> float | None:
    bytes_ = (record.memory or {}).get(where)
    return None if bytes_ is None else bytes_ / 1e9


def _speed_table(mains: Sequence[Evaluation]) -> Table:
    rows = []
    for main in mains:
        cells = [(Entry(main.record.device or NOTHING, None, source_name(main)),)]
        for measure in _SPEEDS.values():
            value = measure(main.record)
            cells.append((Entry(NOTHING if value is None else f"{value:.3g}", value, source_name(main)),))
        rows.append((main, tuple(cells)))
    names = _distinct([(_column_name(main), main.run) for main, _ in rows])
    caption = (
        "Rates of what a run computed itself; memory is the most that its one process had, and is not known where "
        "others did the work."
    )
    table = tuple((name, cells) for name, (_, cells) in zip(names, rows, strict=True))
    return Table("speed", "Speed and memory", "run", ("device", *_SPEEDS), table, caption=caption)
