"""The ensemble as a method: its first half recalls the runs' maps, its second lets each run decide and adds up."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from pnp_core.data import ClassMaps
from pnp_core.errors import UsageError
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.grids import min_max, resize_matrix
from pnp_core.masks.label_map import Scores
from pnp_core.methods.base import Decision, Method, Question, StoredMaps
from pnp_core.methods.ensemble.combine import weighted_sum
from pnp_core.methods.ensemble.config import EnsembleConfig
from pnp_core.methods.ensemble.members import Member, PinnedRuns, StoredRun, open_runs, pin_runs, scores_of
from pnp_core.storage.run_folder import RunFolder

SHOWN_SIDE = 64
"""Cells a side at most of what people are shown of a run's maps."""


class RecalledRuns(StoredMaps):
    """The stored maps of several runs."""

    def __init__(self, runs: tuple[StoredRun, ...]) -> None:
        self._runs = runs

    def recall(self, key: str, size: tuple[int, int]) -> ClassMaps:
        """Every run's maps of an image as parts; candidates and their scores as the first run has them."""
        parts = tuple(run.maps(key, size) for run in self._runs)
        first = parts[0]
        shown = _shown([part.by_class().maps for part in parts])
        return replace(first, maps=shown, itm=None, of=(), parts=tuple(replace(p, scores=first.scores) for p in parts))


def _shown(maps: list[Float[np.ndarray, "_ C _ _"]]) -> Float[np.ndarray, "M C _ _"]:
    """For people: of each run's maps (K, C, gh, gw) the mean over passes, in [0, 1], on the largest of their grids."""
    side = [min(SHOWN_SIDE, max(one.shape[axis] for one in maps)) for axis in (2, 3)]
    means = [min_max(one.mean(axis=0)) for one in maps]
    shown = [resize_matrix(side[0], m.shape[1]) @ m @ resize_matrix(side[1], m.shape[2]).T for m in means]
    return np.stack(shown).astype(np.float32)


class EnsembleMethod(Method[EnsembleConfig, PinnedRuns]):
    """See `pnp_core.methods.base`."""

    def pin(self, config: EnsembleConfig) -> PinnedRuns:
        """Read the runs' records.

        Raises:
            UsageError: a run is missing, unfinished, an ensemble itself, or of another version.
            DamagedError: a record of one is damaged.
        """
        return pin_runs(config.runs)

    def load(self, config: EnsembleConfig, pinned: PinnedRuns, captions: tuple[str, ...], device: str) -> RecalledRuns:
        """There is no model."""
        return RecalledRuns(open_runs(pinned.members))

    def decide(self, config: EnsembleConfig, masks: MaskConfig, maps: ClassMaps, size: tuple[int, int]) -> Scores:
        """As `decision`, of the runs as they are now."""
        return self.decision(config, self.pin(config))(masks, maps, size)

    def decision(self, config: EnsembleConfig, pinned: PinnedRuns) -> Decision:
        """Each run's own scores, and their weighted sum; see `weighted_sum`."""
        return partial(_decide, tuple(zip(config.shares, pinned.members, strict=True)))

    def check_question(self, config: EnsembleConfig, pinned: PinnedRuns, question: Question) -> None:
        """Whether the runs are of the same pictures, classes and candidates as each other and as the run that is asked.

        Raises:
            UsageError: they are not.
            CorruptRunError: a table of a run is missing or damaged.
        """
        for member in pinned.members:
            _check_member(member, question)
        runs = open_runs(pinned.members)
        for run in runs[1:]:
            _check_same(runs[0], run, question)
        _check_vocabulary(runs[0], question)


def _decide(
    weighed: tuple[tuple[float, Member], ...], masks: MaskConfig, maps: ClassMaps, size: tuple[int, int]
) -> Scores:
    def scores() -> Iterator[tuple[float, Scores]]:
        for (share, member), part in zip(weighed, maps.parts, strict=True):
            if share:
                yield share, scores_of(member, masks, part, size)

    return weighted_sum(scores())


def _check_member(member: Member, question: Question) -> None:
    """Raise where a run fits the run that is asked for in nothing."""
    run = f"run '{member.run}'"
    if RunFolder(member.run).path("") == RunFolder(question.out).path(""):
        raise UsageError(f"{run} is where the ensemble is to go: choose another --out")
    if member.classes != question.names:
        raise UsageError(f"{run} has other classes: {_first_difference(member.classes, question.names)}")
    if member.card != question.card:
        raise UsageError(f"{run} is of {member.card}, not of {question.card}: name runs of the same pictures")
    for name, there, here in _differences(json.loads(member.candidates), question.candidates):
        raise UsageError(
            f"{run} has chosen candidates with {name} {_said(there)}, the ensemble would with {_said(here)}: give "
            f"-p salience.candidates.{name}={_said(there)}, or name runs whose candidates are chosen alike"
        )


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Settings that are there and here, and other ones."""
    for name, value in here.items():
        other = there.get(name, value)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            yield from ((f"{name}.{inner}", *values) for inner, *values in _differences(other, value))
        elif other != value:
            yield name, other, value


def _said(value: Any) -> str:
    return "null" if value is None else value if isinstance(value, str) else json.dumps(value)


def _first_difference(there: tuple[str, ...], here: tuple[str, ...]) -> str:
    if len(there) != len(here):
        return f"{len(there)}, not {len(here)}; give both the same classes, in the same order"
    label = next(n for n, (one, other) in enumerate(zip(there, here, strict=True)) if one != other)
    return f"label {label + 1} is '{there[label]}', not '{here[label]}'; give both the same classes, in the same order"


def _check_same(first: StoredRun, other: StoredRun, question: Question) -> None:
    """Raise where two runs have no picture in common, or chose other candidates for one."""
    both = f"runs '{first.member.run}' and '{other.member.run}'"
    common = [key for key in first.known if key in other.known]
    if not common:
        raise UsageError(f"{both} have no picture in common: name runs of the same pictures")
    odd = [key for key in common if first.known[key].classes != other.known[key].classes]
    if odd:
        asked = " but ".join(_names(run.known[odd[0]].classes, question) for run in (first, other))
        raise UsageError(
            f"{both} asked about other classes in {len(odd)} of {len(common)} pictures, such as {asked} in "
            f"'{odd[0]}': make them with candidates that do not depend on the method (--candidates labels, vocabulary, "
            f"clip or file)"
        )


def _names(labels: tuple[int, ...], question: Question) -> str:
    return ", ".join(question.names[label - 1] for label in labels) or "none"


def _check_vocabulary(run: StoredRun, question: Question) -> None:
    """Raise where the runs were asked about what this one leaves out (`only_classes`)."""
    allowed = set(question.vocabulary)
    if key := next((key for key, known in run.known.items() if not allowed.issuperset(known.classes)), None):
        lost = next(label for label in run.known[key].classes if label not in allowed)
        raise UsageError(
            f"run '{run.member.run}' was asked about '{question.names[lost - 1]}' in '{key}', which is not among the "
            f"classes of this run: give all the same --only-classes"
        )


METHOD = EnsembleMethod()
