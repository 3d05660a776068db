"""What runs have left: for each setting its configuration, what made it, and its scores."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from pnp_core.config import EvalConfig
from pnp_core.errors import CorruptRunError, UsageError
from pnp_core.finish import EVALUATIONS, RUN, SCORES
from pnp_core.store import RunFolder

SUBSETS = "subsets"
"""Folder with the run folders of class subsets, which have pictures of their own."""
# What changes no score: where things lie, what runs them, what else is written.
_NO_SETTING: dict[str, Any] = {
    **dict.fromkeys(("settings", "preset", "dataset", "out", "data", "png", "shards", "runtime", "dispatch"), True),
    "masks": {"confidence"},
    "salience": {"backbone": {"heads"}},
}


@dataclass(frozen=True)
class Evaluation:
    """One setting on one set of pictures.

    Attributes:
        run: name of the run folder, for people.
        folder: the run folder.
        url: of the evaluation in it.
        scores: as in scores.json; None when they are missing.
        main: it is what the run folder stands for.
        record: as in run.json.
    """

    run: str
    folder: str
    url: str
    config: EvalConfig
    scores: dict[str, Any] | None
    record: dict[str, Any] = field(repr=False)
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
        return self.scores["miou"] if self.scores else None

    @property
    def partial(self) -> str:
        """Why this is not the score of the whole split; empty when it is."""
        reasons, summary, limit = [], self.record["summary"], self.config.limit
        whole = self.record["card"]["images"]
        if limit is not None and (whole is None or limit < whole):
            reasons.append(f"the first {limit} pictures only" if whole else f"limited to {limit} pictures")
        if quarantined := summary["quarantined"]:
            reasons.append(f"{quarantined} of {summary['images']} pictures quarantined")
        if self.scores and self.scores["images_scored"] < summary["images"] - quarantined:
            reasons.append(f"{self.scores['images_scored']} of {summary['images']} pictures have ground truth")
        return "; ".join(reasons)

    @property
    def images(self) -> int:
        """Pictures that were scored."""
        return self.scores["images_scored"] if self.scores else 0


@dataclass(frozen=True)
class Facts:
    """What a score depends on besides the configuration, and what settings around it can be made from.

    Attributes:
        identity: of weights, dataset card and stages; of another version no score is the same.
    """

    layers: int
    heads: int
    subsets: dict[str, tuple[str, ...]]
    default_split: str
    identity: str

    @classmethod
    def of(cls, record: dict[str, Any]) -> Facts:
        """From a run's record, or `setting_facts`."""
        card, model = record["card"], record["model"]
        identity = json.dumps(
            [record["weights_revision"], card["name"], card["version"], record["stages"]], sort_keys=True
        )
        subsets = {name: tuple(classes) for name, classes in card["subsets"].items()}
        return cls(model["layers"], model["heads"], subsets, card["default_split"], identity)


def setting_key(config: EvalConfig, facts: Facts) -> str:
    """The parts of a configuration that can change the score, in one form for settings that mean the same."""
    values = config.model_dump(mode="json", exclude=_NO_SETTING)
    dropout, masks = values["salience"]["dropout"], values["masks"]
    values["passes"] = masks.pop("passes") or dropout["iterations"]
    del dropout["iterations"]
    if values["passes"] == 1:
        values["salience"]["dropout"] = None
    if masks["crf"]["name"] == "off":
        masks["crf"] = {"name": "off"}
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
    for url, name in zip(runs, _names(runs), strict=True):
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


def _names(runs: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [PurePosixPath(run.split("://")[-1]).parts for run in runs]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]).lstrip("/") for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(runs)


def read_folder(url: str, name: str = "") -> list[Evaluation]:
    """The evaluations of one run folder, the one it stands for first; none when there is no such folder."""
    return list(_read_folder(RunFolder(url), name))


def _read_folder(run: RunFolder, name: str) -> Iterable[Evaluation]:
    stands_for = (run.read_json(RUN) or {}).get("evaluation")
    own = {PurePosixPath(file).parts[1]: file for file in run.glob(f"{EVALUATIONS}/*/{RUN}")}
    for evaluation in sorted(own, key=lambda e: (e != stands_for, e)):
        yield _read(run, name, str(PurePosixPath(own[evaluation]).parent), main=evaluation == stands_for)
    for file in run.glob(f"{SUBSETS}/*/{EVALUATIONS}/*/{RUN}"):
        subset = PurePosixPath(file).parts[1]
        yield _read(run, f"{name}/{SUBSETS}/{subset}", str(PurePosixPath(file).parent), main=False)


_NEEDED = ("card", "device", "evaluation", "memory", "model", "rates", "stages", "summary", "weights_revision")


def _read(run: RunFolder, name: str, folder: str, main: bool) -> Evaluation:
    record = run.read_json(f"{folder}/{RUN}")
    try:
        config = EvalConfig.model_validate(record["config"])
        evaluation = Evaluation(
            name, run.url, f"{run.url}/{folder}", config, run.read_json(f"{folder}/{SCORES}"), record, main
        )
        assert evaluation.facts
        assert all(key in record for key in _NEEDED)
    except (AssertionError, TypeError, KeyError, ValidationError) as error:
        raise CorruptRunError(
            f"'{run.path(f'{folder}/{RUN}')}' was made by another version or is damaged; run its evaluation again"
        ) from error
    return evaluation
