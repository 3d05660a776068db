"""The search: what it tries, its log, and that a killed one goes on with the same sequence."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pnp_core.errors import CorruptRunError, UnknownNameError
from pnp_core.storage.run_folder import RunFolder
from pnp_core.tuning.optimizer import GRID, OptimizerError, _build, optimize, optimizer_name, optimizer_names
from pnp_core.tuning.search import (
    Setting,
    Space,
    Trial,
    TrialLog,
    best_trial,
    known_rewards,
    search_group,
)

SPACE = Space((0, 1, 2), (0, 1, 3), (1,), (0.05, 0.15, 0.25, 0.35), (0.0, 0.02, 0.05))


def toy_reward(setting: Setting) -> float:
    return setting.head - abs(setting.threshold - 0.15) - 3 * abs(setting.blur - 0.02) + 0.2 * setting.layer


def search(
    folder: Path, optimizer: str = "random-search", trials: int = 20, reward=toy_reward, **options
) -> list[Trial]:
    log = TrialLog(RunFolder(str(folder)), "log.parquet")
    chosen = {"group": 0, "space": SPACE, "seed": 5, "known": {}, **options}
    return search_group(optimizer=optimizer, trials=trials, log=log, reward=reward, progress=lambda n: None, **chosen)


class Killed(BaseException):
    """Not an Exception: nothing on the way may catch it."""


def killed_after(trials: int):
    calls = iter(range(10**6))

    def reward(setting: Setting) -> float:
        if next(calls) >= trials:
            raise Killed
        return toy_reward(setting)

    return reward


def test_layers_are_cut_into_neighbouring_groups():
    assert [group.layers for group in SPACE.groups(2)] == [(0, 1), (2,)]
    assert [group.layers for group in SPACE.groups(7)] == [(0,), (1,), (2,)]
    assert SPACE.groups(1) == [SPACE]


QUICK = ("random-search", "particle-swarm")


@pytest.mark.parametrize(
    "optimizer", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in optimizer_names()]
)
def test_every_optimizer_of_the_library_goes_on_with_the_same_sequence(optimizer, tmp_path):
    undisturbed = search(tmp_path / "undisturbed", optimizer)
    assert len(undisturbed) == 20
    with pytest.raises(Killed):
        search(tmp_path / "killed", optimizer, reward=killed_after(2))
    assert search(tmp_path / "killed", optimizer) == undisturbed
    logs = [(tmp_path / name / "log.parquet").read_bytes() for name in ("undisturbed", "killed")]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("cut", [9])
def test_a_search_killed_at_any_trial_gives_the_same_log(cut, tmp_path):
    undisturbed = search(tmp_path / "a", "bayesian", trials=12)
    with pytest.raises(Killed):
        search(tmp_path / "b", "bayesian", trials=12, reward=killed_after(cut))
    assert search(tmp_path / "b", "bayesian", trials=12) == undisturbed


def test_a_finished_search_calls_no_reward_again(tmp_path):
    first = search(tmp_path)
    assert search(tmp_path, reward=killed_after(0)) == first


def test_a_setting_that_is_drawn_again_is_rewarded_once(tmp_path):
    asked = []
    small = Space((0,), (0, 1), (1,), (0.1, 0.2), (0.0,))

    def reward(setting: Setting) -> float:
        asked.append(setting)
        return toy_reward(setting)

    trials = search(tmp_path, trials=30, reward=reward, space=small)
    assert len(trials) == 30
    assert sorted(asked, key=str) == sorted(set(small.settings()), key=str)


def test_grid_tries_every_setting_once(tmp_path):
    trials = search(tmp_path, "grid-search", trials=len(SPACE))
    assert len({trial.setting for trial in trials}) == len(SPACE) == len(list(SPACE.settings())) == 108


@pytest.mark.parametrize("sizes", [[3], [7, 4], [1, 3], [3, 3], [2, 3, 5], [1, 2, 1, 3, 3], [11, 12, 1, 2, 1]])
def test_grid_misses_no_place_whatever_the_axes(sizes):
    """In the process of the optimizer alone: what draws from global generators does not matter to a grid."""
    places: list[tuple[int, ...]] = []

    def reward(place: dict[str, int]) -> float:
        places.append(tuple(map(int, place.values())))
        return 0.0

    _build(GRID, sizes, 0, 0).search(reward, n_iter=math.prod(sizes), verbosity=False, memory=False)
    assert len(set(places)) == math.prod(sizes)


@pytest.mark.ops
def test_searches_side_by_side_do_not_disturb_each_other(tmp_path):
    def one(group: int, place: str) -> list[Trial]:
        return search(tmp_path / place / str(group), "particle-swarm", group=group)

    alone = [one(group, "alone") for group in range(2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda group: one(group, "together"), range(2)))
    assert together == alone
    assert len({tuple(t.setting for t in trials) for trials in alone}) == 2, "groups have sequences of their own"


def test_a_failing_optimizer_ends_in_one_line():
    with pytest.raises(OptimizerError, match="optimizer random-search failed: "):
        optimize("random-search", [0], 3, 0, 0, lambda position: 0.0)


def test_no_process_of_the_optimizer_is_left_when_the_reward_fails(tmp_path):
    def children() -> set[str]:
        return set(Path("/proc/self/task").glob("*/children")) and {
            child for file in Path("/proc/self/task").glob("*/children") for child in file.read_text().split()
        }

    before = children()
    with pytest.raises(Killed):
        search(tmp_path, reward=killed_after(3))
    assert children() <= before


def test_a_log_of_another_search_is_refused(tmp_path):
    search(tmp_path, seed=1)
    with pytest.raises(CorruptRunError, match="the log of group 0 is of another search"):
        search(tmp_path, seed=2)


def test_groups_of_neighbouring_seeds_have_sequences_of_their_own(tmp_path):
    second_group = search(tmp_path / "a", seed=0, group=1)
    other_seed = search(tmp_path / "b", seed=1, group=0)
    assert [t.setting for t in second_group] != [t.setting for t in other_seed]


def test_rewards_known_from_another_search_are_not_asked_for_again(tmp_path):
    first = search(tmp_path / "tuning/a", "grid-search", trials=len(SPACE))
    (tmp_path / "tuning/a/log.parquet").rename(tmp_path / "tuning/a/group-0.parquet")
    known = known_rewards(RunFolder(str(tmp_path)), "tuning")
    assert known == {trial.setting: trial.reward for trial in first}
    again = search(tmp_path / "tuning/b", seed=8, known=known, reward=killed_after(0))
    assert {t.setting: t.reward for t in again}.items() <= known.items()


def test_names_of_optimizers():
    assert (optimizer_name("random"), optimizer_name("grid")) == ("random-search", "grid-search")
    with pytest.raises(UnknownNameError, match="unknown optimizer 'bayes'; did you mean 'bayesian'"):
        optimizer_name("bayes")


def test_of_equal_rewards_the_first_trial_of_the_lowest_group_is_best():
    setting = Setting(0, 0, 1, 0.1, 0.0)
    trials = [
        Trial(1, 0, setting, 0.5),
        Trial(0, 3, setting, 0.5),
        Trial(0, 1, setting, 0.5),
        Trial(0, 0, setting, 0.4),
    ]
    assert best_trial(trials) == trials[2]
