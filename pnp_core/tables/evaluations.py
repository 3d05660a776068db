"""What runs have left: for each setting its configuration, what made it, and its scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from pnp_core.cards import load_card
from pnp_core.config import EvalConfig
from pnp_core.errors import CorruptRunError, UsageError
from pnp_core.finish import EVALUATIONS, RUN, SCORES
from pnp_core.store import RunFolder

SUBSETS = "subsets"
"""Folder with the run folders of class subsets, which have pictures of their own."""
# What changes no score: where things lie, what runs them, what else is written.
_NO_SETTING: dict[str, Any] = {
    **dict.fromkeys(("settings", "preset", "out", "data", "png", "shards", "runtime", "dispatch"), True),
    "masks": {"confidence"},
    "salience": {"backbone": {"heads"}},
}


@dataclass(frozen=True)
class Evaluation:
    """One setting on one set of pictures.

    Attributes:
        run: name of the run folder, for people.
        scores: as in scores.json; None when they are missing.
        main: it is what the run folder stands for.
        record: as in run.json.
    """

    run: str
    config: EvalConfig
    scores: dict[str, Any] | None
    record: dict[str, Any] = field(repr=False)
    main: bool = False

    @property
    def key(self) -> str:
        """Equal where every part of the configuration that can change the score is equal, and the weights are."""
        return setting_key(self.config, self.record["weights_revision"])

    @property
    def miou(self) -> float | None:
        """Share in [0, 1]."""
        return self.scores["miou"] if self.scores else None

    @property
    def partial(self) -> str:
        """Why this is not the score of the whole split; empty when it is."""
        reasons, summary = [], self.record["summary"]
        if self.config.limit is not None and self.config.limit < _pictures_of_split(self.config, self.config.limit):
            reasons.append(f"the first {self.config.limit} pictures only")
        if quarantined := summary["quarantined"]:
            reasons.append(f"{quarantined} of {summary['images']} pictures quarantined")
        if self.scores and self.scores["images_scored"] < summary["images"] - quarantined:
            reasons.append(f"{self.scores['images_scored']} of {summary['images']} pictures have ground truth")
        return "; ".join(reasons)

    @property
    def images(self) -> int:
        """Pictures that were scored."""
        return self.scores["images_scored"] if self.scores else 0


def _pictures_of_split(config: EvalConfig, otherwise: int) -> int:
    """How many pictures the card says a split has."""
    card = load_card(config.dataset)
    split = card.splits.get(config.split or card.default_split)
    return (split and split.images) or otherwise


def setting_key(config: EvalConfig, weights_revision: str) -> str:
    """The parts of a configuration that can change the score, in one form for settings that mean the same."""
    values = config.model_dump(mode="json", exclude=_NO_SETTING)
    dropout, masks = values["salience"]["dropout"], values["masks"]
    values["passes"] = masks.pop("passes") or dropout["iterations"]
    del dropout["iterations"]
    if values["passes"] == 1:
        values["salience"]["dropout"] = None
    if masks["crf"]["name"] == "off":
        masks["crf"] = {"name": "off"}
    card = load_card(config.dataset)
    values["split"] = config.split or card.default_split
    values["weights"] = weights_revision
    return json.dumps(values, sort_keys=True)


def read_evaluations(runs: Sequence[str]) -> list[Evaluation]:
    """All evaluations of some run folders, in the order given; of each folder the one it stands for first.

    Raises:
        UsageError: a folder holds no finished evaluation; two are the same.
    """
    if len(set(runs)) < len(runs):
        raise UsageError("a run folder is named twice")
    found: list[Evaluation] = []
    for url, name in zip(runs, _names(runs), strict=True):
        here = read_folder(url, name)
        if not here:
            raise UsageError(
                f"'{url}' holds no finished evaluation: `pnp-ovss eval DATASET --out {url}` makes one (a run of "
                f"`label` has no scores)"
            )
        found += here
    return found


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
    stands_for = (run.read_json(RUN) or {}).get("fingerprints", {}).get("scores")
    own = {PurePosixPath(file).parts[1]: file for file in run.glob(f"{EVALUATIONS}/*/{RUN}")}
    for fingerprint in sorted(own, key=lambda f: (f != stands_for, f)):
        folder = str(PurePosixPath(own[fingerprint]).parent)
        yield _read(run, name, folder, main=fingerprint == stands_for)
    for file in run.glob(f"{SUBSETS}/*/{EVALUATIONS}/*/{RUN}"):
        subset = PurePosixPath(file).parts[1]
        yield _read(run, f"{name}/{SUBSETS}/{subset}", str(PurePosixPath(file).parent), main=False)


def _read(run: RunFolder, name: str, folder: str, main: bool) -> Evaluation:
    record = run.read_json(f"{folder}/{RUN}")
    try:
        config = EvalConfig.model_validate(record["config"])
    except (TypeError, KeyError, ValidationError) as error:
        raise CorruptRunError(
            f"'{run.path(f'{folder}/{RUN}')}' was made by another version or is damaged; run its evaluation again"
        ) from error
    return Evaluation(name, config, run.read_json(f"{folder}/{SCORES}"), record, main)
