"""What runs have left: for each setting its configuration, what made it, and its scores."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pydantic import ValidationError

from pnp_core.config import EvalConfig
from pnp_core.errors import CorruptRunError, UsageError
from pnp_core.runs.record import (
    EVALUATIONS,
    RUN,
    EvaluationRecord,
    ModelShape,
    RecordedScores,
    SettingFacts,
    read_evaluation,
    read_record,
    unfit,
)
from pnp_core.storage.ledger import Ledger
from pnp_core.storage.run_folder import RunFolder
from pnp_core.text.paths import shortest_names

SUBSETS = "subsets"
"""Folder with the run folders of class subsets, which have pictures of their own."""


@dataclass(frozen=True)
class Evaluation:
    """One setting on one set of pictures.

    Attributes:
        run: name of the run folder, for people.
        folder: the run folder.
        url: of the evaluation in it.
        scores: None when they are missing.
        main: it is what the run folder stands for.
    """

    run: str
    folder: str
    url: str
    config: EvalConfig
    scores: RecordedScores | None
    record: EvaluationRecord = field(repr=False)
    main: bool = False

    @property
    def facts(self) -> Facts:
        """What the score depends on besides the configuration."""
        return Facts.of(self.record)

    @property
    def key(self) -> str:
        """Equal where all is equal that can change the score."""
        return setting_key(self.config, self.facts)

    @property
    def miou(self) -> float | None:
        """Share in [0, 1]."""
        return self.scores.miou if self.scores else None

    @property
    def partial(self) -> str:
        """Why this is not the score of the whole split; empty when it is."""
        reasons, summary, limit = [], self.record.summary, self.config.limit
        whole = self.record.card.images
        # How many pictures have a class of a subset is on no card; how many there were to look at is in the record.
        there = self.record.card.listed if self.config.only_classes else summary.images
        if limit is not None and (whole is None or limit < whole):
            reasons.append(f"the first {limit} pictures only" if whole else f"limited to {limit} pictures")
        if whole is not None and there is not None and there < min(whole, limit or whole):
            reasons.append(f"{there} of {whole} pictures")
        if summary.quarantined:
            reasons.append(f"{summary.quarantined} of {summary.images} pictures quarantined")
        if self.scores and self.scores.images_scored < summary.images - summary.quarantined:
            reasons.append(f"{self.scores.images_scored} of {summary.images} pictures have ground truth")
        return "; ".join(reasons)

    @property
    def images(self) -> int:
        """Pictures that were scored."""
        return self.scores.images_scored if self.scores else 0


@dataclass(frozen=True)
class Facts:
    """What a score depends on besides the configuration, and what settings around it can be made from.

    Attributes:
        identity: of weights, dataset card and stages; of another version no score is the same.
        renamed: classes of the card that the authors' code calls otherwise.
    """

    model: ModelShape | None
    subsets: dict[str, tuple[str, ...]]
    default_split: str
    identity: str
    renamed: int = 0

    @classmethod
    def of(cls, facts: SettingFacts) -> Facts:
        """From an evaluation's record, or what would be in it."""
        card, model = facts.card, facts.model
        if card is None:
            raise TypeError("these are the facts of a run without ground truth")
        identity = json.dumps([facts.weights_revision, card.name, card.version, facts.stages], sort_keys=True)
        return cls(model, card.subsets, card.default_split, identity, card.renamed)


def setting_key(config: EvalConfig, facts: Facts) -> str:
    """The parts of a configuration that can change the score, in one form for settings that mean the same."""
    values = config.setting()
    if not facts.renamed or values["salience"]["words"] == "natural":  # as before there were others
        del values["salience"]["words"]
    values["split"] = config.split or facts.default_split
    values["facts"] = facts.identity
    return json.dumps(values, sort_keys=True)


def read_evaluations(runs: Sequence[str]) -> list[Evaluation]:
    """All evaluations of some run folders, in the order given; of each folder the one it stands for first.

    Raises:
        UsageError: a folder holds no finished evaluation; two are the same.
    """
    runs = [run.rstrip("/") for run in runs]
    if len(set(runs)) < len(runs):
        twice = next(run for run in runs if runs.count(run) > 1)
        raise UsageError(f"run folder '{twice}' is named twice")
    found: list[Evaluation] = []
    for url, name in zip(runs, shortest_names(runs), strict=True):
        here = read_folder(url, name)
        if not here:
            why = "holds no finished evaluation" if RunFolder(url).exists("") else "does not exist"
            raise UsageError(f"'{url}' {why}: `pnp-ovss eval DATASET --out {url}` makes one")
        found += here
    return found


def usable_evaluations(runs: Sequence[str]) -> tuple[list[Evaluation], list[str]]:
    """All evaluations of some run folders, and warnings of what is not among them, a line each.

    Raises:
        UsageError: as `read_evaluations`.
    """
    passed_over = without_scores(runs)
    found = read_evaluations([run for run in runs if run not in passed_over])
    warnings = [f"'{run}' has no scores and is passed over: a run of label or tune" for run in passed_over]
    return found, warnings + gaps(found)


def without_scores(runs: Sequence[str]) -> list[str]:
    """Those of some folders that hold a run of something else, such as `label`, which has no scores."""
    return [url for url in runs if RunFolder(url).exists(RUN) and not read_folder(url)]


def gaps(evaluations: Sequence[Evaluation]) -> list[str]:
    """What a user should know is missing from some evaluations, a line each."""
    lost = Counter(e.run for e in evaluations if e.scores is None)
    lines = [f"{number} evaluations of run {run} have lost their scores" for run, number in lost.items()]
    headless = {e.run.split(f"/{SUBSETS}/")[0] for e in evaluations} - {e.run for e in evaluations if e.main}
    return lines + [f"run {run} has no {RUN}: it is in no table of its own" for run in sorted(headless)]


def read_folder(url: str, name: str = "") -> list[Evaluation]:
    """The evaluations of one run folder, the one it stands for first; none when there is no such folder.

    Raises:
        CorruptRunError: one of them is damaged, or of a version that kept other things.
    """
    return [_read(*where) for where in _places(RunFolder(url), name)]


def whole_evaluations(url: str) -> list[Evaluation]:
    """The evaluations of one run folder that can be read; the others have to be made again."""
    found = []
    for where in _places(RunFolder(url), ""):
        with suppress(CorruptRunError):
            found.append(_read(*where))
    return found


def _places(run: RunFolder, name: str) -> Iterator[tuple[RunFolder, str, str, bool]]:
    """Where evaluations are: run folder, its name, folder in it, and whether the run folder stands for it."""
    record = None
    with suppress(CorruptRunError):
        record = read_record(run)
    stands_for = record and record.evaluation
    for folder in sorted(_folders(run), key=lambda folder: (PurePosixPath(folder).name != stands_for, folder)):
        yield run, name, folder, PurePosixPath(folder).name == stands_for
    for subset in sorted({PurePosixPath(file).parts[1] for file in run.glob(f"{SUBSETS}/*/{EVALUATIONS}/*/{RUN}")}):
        own = RunFolder(run.below(f"{SUBSETS}/{subset}"))
        for folder in sorted(_folders(own)):
            yield run, f"{name}/{SUBSETS}/{subset}", f"{SUBSETS}/{subset}/{folder}", False


def _folders(run: RunFolder) -> list[str]:
    """Folders of evaluations; of what else lies there under such a name, where that can be told, none."""
    ledger, found = Ledger.known(run), run.glob(f"{EVALUATIONS}/*/{RUN}")
    return [str(PurePosixPath(file).parent) for file in found if ledger is None or file in ledger.files]


def _read(run: RunFolder, name: str, folder: str, main: bool) -> Evaluation:
    # A class subset's folder has a list of its files of its own.
    parts = PurePosixPath(folder).parts
    own = RunFolder(run.below("/".join(parts[:-2]))) if len(parts) > 2 else run
    record, scores = read_evaluation(own, "/".join(parts[-2:]))
    try:
        config = EvalConfig.recorded(record.config.model_dump())
    except ValidationError as error:
        raise unfit(run, f"{folder}/{RUN}", error) from error
    except UsageError as error:  # of a method that is not installed here
        raise CorruptRunError(f"'{run.path(f'{folder}/{RUN}')}': {error}") from error
    return Evaluation(name, run.url, f"{run.url}/{folder}", config, scores, record, main)
