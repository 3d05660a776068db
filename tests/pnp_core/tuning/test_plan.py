"""What a tuning run is made of, and what its results are named by."""

import pytest

from pnp_core.data import ShardRef
from pnp_core.errors import ClassNameError, UnknownNameError, UsageError
from pnp_core.tuning.config import TuneConfig
from pnp_core.tuning.plan import check_tune, plan_tune, shard_tuning

SHARDS = [ShardRef("000000", 3, 100, "a" * 64)]


def planned(out, **options):
    return plan_tune(TuneConfig(out=str(out), **options))


def test_trials_are_spread_over_the_groups_of_layers(tmp_path, random_blip):
    salience = {"backbone": {"checkpoint": str(random_blip), "image_size": 48, "heads": 2}}
    groups = planned(tmp_path, salience=salience).groups
    assert [(g.space.layers, g.trials) for g in groups] == [((0,), 51), ((1,), 51)], "the last layer is left out"
    few = planned(tmp_path, salience=salience, search={"trials": 5}).groups
    assert [g.trials for g in few] == [3, 2]
    grid = planned(tmp_path, salience=salience, search={"optimizer": "grid"}).groups
    assert [g.trials for g in grid] == [48, 48]


@pytest.mark.parametrize(
    "change",
    [
        {"reward": {"kind": "authors"}},
        {"reward": {"clip": {"template": "art of a {}"}}},
        {"reward": {"batch_size": 7}},
        {"masks": {"sum": "first_twice"}},
        {"salience": {"dropout": {"amount": 2}}},
        {"salience": {"caption": {"mode": "joint"}}},
        {"salience": {"candidates": {"source": "itm"}}},
        {"space": {"layers": [0]}, "salience": {"kind": "attention"}},
    ],
)
def test_whatever_changes_a_reward_changes_where_rewards_are_kept(change, tmp_path):
    assert planned(tmp_path, **change).reward_folder(SHARDS) != planned(tmp_path).reward_folder(SHARDS)


@pytest.mark.parametrize(
    "change",
    [
        {"search": {"seed": 3}},
        {"search": {"optimizer": "bayesian"}},
        {"search": {"trials": 7}},
        {"space": {"blurs": [0.1]}},
    ],
)
def test_another_search_has_another_log_but_the_same_rewards(change, tmp_path):
    plain, other = planned(tmp_path), planned(tmp_path, **change)
    assert other.reward_folder(SHARDS) == plain.reward_folder(SHARDS)
    assert other.search_folder(SHARDS) != plain.search_folder(SHARDS)


def test_where_and_how_fast_changes_nothing(tmp_path):
    plain = planned(tmp_path)
    runtime = {"runtime": {"device": "cpu", "batch_size": 3}, "search": {"parallel": 2}, "compare": {"masks": "off"}}
    assert planned(tmp_path / "elsewhere", **runtime).search_folder(SHARDS) == plain.search_folder(SHARDS)


def test_other_pictures_have_other_rewards(tmp_path):
    plan = planned(tmp_path)
    assert plan.reward_folder(SHARDS) != plan.reward_folder([ShardRef("000000", 3, 100, "b" * 64)])


def test_background_queries_are_refused(tmp_path):
    classes = ["car", {"name": "sky", "background": True}]
    with pytest.raises(UsageError, match="'sky' is a background query: leave it out"):
        planned(tmp_path, data=str(tmp_path), dataset="folder", classes=classes)


def test_more_classes_than_can_be_scored_are_refused_where_masks_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr("pnp_core.runs.plan.MOST_SCORED", 3)
    with pytest.raises(UsageError, match="at most 3 can be scored"):
        planned(tmp_path)
    assert planned(tmp_path, compare={"masks": "off"}).groups


def test_pictures_are_drawn_by_the_seed(tmp_path):
    configs = [TuneConfig(out=str(tmp_path / str(seed)), images=3, search={"seed": seed}) for seed in (0, 1)]
    first, second = (shard_tuning(config) for config in configs)
    assert first[0].sha256 != second[0].sha256


def test_every_class_name_is_read_before_anything_starts(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(b"x")
    config = TuneConfig(out=str(tmp_path / "out"), data=str(tmp_path / "photos"), classes=("star", "日本"))
    with pytest.raises(ClassNameError, match="日本"):
        check_tune(config)


def test_ground_truth_that_is_not_there_is_refused_at_once(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown ground truth of dataset scenes 'drawm'; did you mean 'drawn'"):
        planned(tmp_path, ground_truth="drawm")
