"""The search over layer, head, drop iterations, threshold and blur: Gradient-Free-Optimizers behind a trial log.

The optimizers are deterministic for a seed, given the rewards of the trials before. So a killed
search is replayed from its log, at no cost, and goes on where it was with the same sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from itertools import product
from math import isfinite

import numpy as np
import pyarrow as pa

from pnp_core.errors import CorruptRunError
from pnp_core.storage.run_folder import RunFolder, table_bytes
from pnp_core.tuning.optimizer import optimize

TRIALS_PER_GROUP = 34


@dataclass(frozen=True)
class Setting:
    """One point of the search space; layer and head counted from 0."""

    layer: int
    head: int
    iterations: int
    threshold: float
    blur: float


@dataclass(frozen=True)
class Trial:
    """A setting that was tried, and its reward (higher is better)."""

    group: int
    number: int
    setting: Setting
    reward: float


@dataclass(frozen=True)
class Space:
    """The values a search chooses from; the space is their product."""

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    iterations: tuple[int, ...]
    thresholds: tuple[float, ...]
    blurs: tuple[float, ...]

    def __len__(self) -> int:
        return int(np.prod(self.sizes))

    def settings(self) -> Iterator[Setting]:
        """Every point."""
        return (Setting(*values) for values in product(*astuple(self)))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of the lists."""
        return tuple(len(values) for values in astuple(self))

    def at(self, position: Sequence[int]) -> Setting:
        """The point at some places in the lists."""
        return Setting(*(values[place] for values, place in zip(astuple(self), position, strict=True)))

    def groups(self, number: int) -> list[Space]:
        """Cut the layers into as many neighbouring groups, fewer where there are fewer layers.

        >>> [g.layers for g in Space((0, 1, 2, 3), (0,), (1,), (0.1,), (0.0,)).groups(3)]
        [(0, 1), (2,), (3,)]
        """
        parts = np.array_split(np.array(self.layers), min(number, len(self.layers)))
        return [Space(tuple(part.tolist()), self.heads, self.iterations, self.thresholds, self.blurs) for part in parts]


_LOG_SCHEMA = pa.schema(
    [
        ("group", pa.int32()),
        ("number", pa.int32()),
        ("layer", pa.int32()),
        ("head", pa.int32()),
        ("iterations", pa.int32()),
        ("threshold", pa.float64()),
        ("blur", pa.float64()),
        ("reward", pa.float64()),
    ]
)


def trials_table(trials: Iterable[Trial]) -> pa.Table:
    """Trials as a table, one row each."""
    rows = [{"group": t.group, "number": t.number, **asdict(t.setting), "reward": t.reward} for t in trials]
    return pa.Table.from_pylist(rows, schema=_LOG_SCHEMA)


def known_rewards(run: RunFolder, folder: str) -> dict[Setting, float]:
    """Rewards in the logs of all searches below a folder; they do not depend on who asked."""
    files = run.glob(f"{folder}/*/group-*.parquet")
    return {trial.setting: trial.reward for file in files for trial in TrialLog(run, file).trials}


class TrialLog:
    """The trials of one group, in Parquet; written anew, atomically, after every trial. A damaged log is none."""

    def __init__(self, run: RunFolder, file: str) -> None:
        self._run = run
        self._file = file
        table = run.find_table(file)
        names = [field.name for field in fields(Setting)]
        trials = [
            Trial(row["group"], row["number"], Setting(*(row[name] for name in names)), row["reward"])
            for row in (table.to_pylist() if table else ())
        ]
        # A reward that is no number could not be compared with the others: such a log is damaged.
        self.trials = trials if all(isfinite(trial.reward) for trial in trials) else []

    def replay(self, number: int, setting: Setting) -> Trial | None:
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
    space: Space,
    optimizer: str,
    trials: int,
    seed: int,
    log: TrialLog,
    known: dict[Setting, float],
    reward: Callable[[Setting], float],
    progress: Callable[[int], None],
) -> list[Trial]:
    """Try settings of one group of layers, or go on from the log of an earlier try.

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
