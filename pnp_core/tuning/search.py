"""The search over settings: Gradient-Free-Optimizers behind a trial log.

The optimizers are deterministic for a seed, given the rewards of the trials before. So a killed
search is replayed from its log, at no cost, and goes on where it was with the same sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from math import isfinite
from typing import Any

import numpy as np
import pyarrow as pa

from pnp_core.errors import CorruptRunError
from pnp_core.storage.run_folder import RunFolder, table_bytes
from pnp_core.tuning.optimizer import optimize
from pnp_core.tuning.space import AnySetting, AnySpace, PathSetting

TRIALS_PER_GROUP = 34


@dataclass(frozen=True)
class Setting(AnySetting):
    """One point of PnP-OVSS's search space; layer and head counted from 0."""

    layer: int
    head: int
    iterations: int
    threshold: float
    blur: float

    @property
    def columns(self) -> dict[str, Any]:
        """Its values by name."""
        return asdict(self)


@dataclass(frozen=True)
class Trial:
    """A setting that was tried, and its reward (higher is better)."""

    group: int
    number: int
    setting: AnySetting
    reward: float


@dataclass(frozen=True)
class Space(AnySpace[Setting]):
    """The values that a search for PnP-OVSS chooses from."""

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    iterations: tuple[int, ...]
    thresholds: tuple[float, ...]
    blurs: tuple[float, ...]

    @property
    def lists(self) -> tuple[tuple[Any, ...], ...]:
        """The values along each axis."""
        return astuple(self)

    def point(self, values: Sequence[Any]) -> Setting:
        """The setting of one value along each axis."""
        return Setting(*values)

    def groups(self, number: int) -> list[AnySpace[Setting]]:
        """Cut the layers into as many neighbouring groups, fewer where there are fewer layers.

        >>> [g.layers for g in Space((0, 1, 2, 3), (0,), (1,), (0.1,), (0.0,)).groups(3)]
        [(0, 1), (2,), (3,)]
        """
        parts = np.array_split(np.array(self.layers), min(number, len(self.layers)))
        return [Space(tuple(part.tolist()), self.heads, self.iterations, self.thresholds, self.blurs) for part in parts]


_TYPES = {bool: pa.bool_(), int: pa.int32(), float: pa.float64(), str: pa.string()}


def trials_table(trials: Iterable[Trial]) -> pa.Table:
    """Trials as a table, one row each."""
    rows = [{"group": t.group, "number": t.number, **t.setting.columns, "reward": t.reward} for t in trials]
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, _TYPES[type(v)]) for name, v in rows[0].items()]))


def _trial(row: dict[str, Any]) -> Trial:
    """A row of the table: what does not have the columns of PnP-OVSS has paths."""
    group, number, reward = (row.pop(name) for name in ("group", "number", "reward"))
    own = row.keys() == {field.name for field in fields(Setting)}
    return Trial(group, number, Setting(**row) if own else PathSetting(tuple(row.items())), reward)


def known_rewards(run: RunFolder, folder: str) -> dict[AnySetting, float]:
    """Rewards in the logs of all searches below a folder; they do not depend on who asked."""
    files = run.glob(f"{folder}/*/group-*.parquet")
    return {trial.setting: trial.reward for file in files for trial in TrialLog(run, file).trials}


class TrialLog:
    """The trials of one group, in Parquet; written anew, atomically, after every trial. A damaged log is none."""

    def __init__(self, run: RunFolder, file: str) -> None:
        self._run = run
        self._file = file
        table = run.find_table(file)
        trials = [_trial(row) for row in (table.to_pylist() if table else ())]
        # A reward that is no number could not be compared with the others: such a log is damaged.
        self.trials = trials if all(isfinite(trial.reward) for trial in trials) else []

    def replay(self, number: int, setting: AnySetting) -> Trial | None:
        """The trial of that number, None when it was not made yet.

        Raises:
            CorruptRunError: it was of another setting.
        """
        if number >= len(self.trials):
            return None
        trial = self.trials[number]
        if trial.setting != setting:
            raise CorruptRunError(
                f"the log of group {trial.group} is of another search: trial {number} was {trial.setting}, "
                f"now {setting}; choose another --out"
            )
        return trial

    def append(self, trial: Trial) -> None:
        """Add a trial."""
        self.trials.append(trial)
        self._run.write(self._file, table_bytes(trials_table(self.trials)))


def search_group(
    group: int,
    space: AnySpace[Any],
    optimizer: str,
    trials: int,
    seed: int,
    log: TrialLog,
    known: dict[AnySetting, float],
    reward: Callable[[Any], float],
    progress: Callable[[int], None],
) -> list[Trial]:
    """Try settings of one group, or go on from the log of an earlier try.

    Args:
        trials: how many, those of the log included.
        seed: of the sequence, together with the group's number.
        known: rewards of settings from other searches.
        reward: called once for every setting that is new; one that is drawn again gets its known reward.

    Raises:
        CorruptRunError: the log is of another search.
    """
    rewards = {**known, **{trial.setting: trial.reward for trial in log.trials}}
    tried: list[Trial] = []

    def objective(position: tuple[int, ...]) -> float:
        setting = space.at(position)
        trial = log.replay(len(tried), setting)
        if trial is None:
            if setting not in rewards:
                rewards[setting] = reward(setting)
            trial = Trial(group, len(tried), setting, rewards[setting])
            log.append(trial)
        tried.append(trial)
        progress(1)
        return trial.reward

    optimize(optimizer, space.sizes, trials, seed, group, objective)
    return tried


def best_trial(trials: Iterable[Trial]) -> Trial:
    """The trial with the highest reward; of equal ones the first of the lowest group."""
    return min(trials, key=lambda t: (-t.reward, t.group, t.number))
