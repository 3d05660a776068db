"""Decisions of any method as regions, and what may be searched."""

import numpy as np
import pytest

from pnp_core.data import ClassMaps
from pnp_core.errors import MethodError, UsageError
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.label_map import Scores
from pnp_core.methods.naclip.config import NaclipConfig
from pnp_core.tuning.config import TuneConfig
from pnp_core.tuning.plan import plan_tune
from pnp_core.tuning.reward import RegionSimilarity, control_reward
from pnp_core.tuning.search import Trial, TrialLog, trials_table
from pnp_core.tuning.space import PathSetting, PathSpace
from pnp_core.tuning.stored import checked, laid_over, won

METHOD, MASKS = NaclipConfig(), MaskConfig(background="always")
BACKGROUND = 0.5


def maps_of(*grids: list[list[float]]) -> ClassMaps:
    """Of classes 3 and 7, a pixel each cell."""
    return ClassMaps(np.array([grids], np.float32), (3, 7), None, 2, 2)


def decide(maps: ClassMaps, size: tuple[int, int]) -> Scores:
    """Classes beside a background of one height."""
    channels = np.concatenate([np.full((1, *size), BACKGROUND, np.float32), maps.maps[0]])
    return Scores(channels, (0, *maps.classes), np.ones(2, np.float32))


def test_the_region_of_a_class_is_where_it_wins():
    found = won(decide, maps_of([[0.9, 0.1], [0.6, 0.6]], [[0.2, 0.3], [0.8, np.nan]]), 2)
    assert found.tolist() == [[[True, False], [False, False]], [[False, False], [True, False]]]


def test_reward_of_regions_by_hand():
    """Class 3 wins the left half, class 7 nothing; a judge for whom the left half is a sure 3, the right one a sure 7.

    Turned by 180 degrees, and moved by half, the left half is the right one: probability 3/4 here, 1/4 elsewhere. The
    empty region is the same everywhere and scores 0: the mean is (1/2 + 0) / 2.
    """
    found = won(decide, maps_of([[0.9, 0.1], [0.9, 0.1]], [[0.2, 0.3], [0.2, 0.3]]), 2)
    assert found.astype(int).tolist() == [[[1, 0], [1, 0]], [[0, 0], [0, 0]]]
    sure = np.log(3) * np.eye(2)
    here, there = np.stack([sure[0], np.zeros(2)]), np.stack([sure[1], np.zeros(2)])
    sight = RegionSimilarity(
        here, np.zeros(2), np.array([0, 1]), ((0, 1),) * 2, found.mean(axis=(1, 2)), (there, there)
    )
    assert control_reward(sight).mean() == pytest.approx(0.25)


def test_what_fits_no_class_is_the_method_s_fault():
    with pytest.raises(MethodError, match="do not fit the image"):
        won(lambda maps, size: Scores(np.zeros((1, 3, 3)), (3,), np.ones(2)), maps_of([[0.0]], [[0.0]]), 2)


def test_values_are_laid_over_method_and_masks():
    method, masks = laid_over(METHOD, MASKS, {"method.scale": 20, "masks.blur": 0.1})
    assert (method, masks) == (METHOD.model_copy(update={"scale": 20.0}), MASKS.model_copy(update={"blur": 0.1}))


def test_values_are_those_that_the_configuration_makes_of_them():
    assert repr(checked(METHOD, MASKS, "method.scale", (20, 40))) == "(20.0, 40.0)"
    assert checked(METHOD, MASKS, "masks.ties", ("cut", "keep")) == ("cut", "keep")


@pytest.mark.parametrize(
    ("path", "values", "message"),
    [
        ("method.sigma", (3.0,), "'method.sigma' searched, which is no setting of its decisions"),
        ("masks.max_side", (64,), "'masks.max_side' searched, which is no setting of its decisions"),
        ("threshold", (0.1,), "'threshold' searched, which is no setting of its decisions"),
        ("method.scale", (), "not over values of one kind"),
    ],
)
def test_what_cannot_be_searched_is_named(path, values, message):
    with pytest.raises(MethodError, match=message):
        checked(METHOD, MASKS, path, values)


def test_a_value_out_of_range_is_named():
    with pytest.raises(UsageError, match=r"space of naclip: method.scale -1: Input should be greater than 0"):
        checked(METHOD, MASKS, "method.scale", (40, -1))


def test_a_log_keeps_values_of_every_kind(tmp_path):
    from pnp_core.storage.run_folder import RunFolder

    space = PathSpace((("masks.ties", ("cut", "keep")), ("method.scale", (20.0,)), ("method.n", (1,)), ("on", (True,))))
    log = TrialLog(RunFolder(str(tmp_path)), "group-0.parquet")
    trials = [Trial(0, number, setting, 0.5) for number, setting in enumerate(space.settings())]
    for trial in trials:
        log.append(trial)
    assert TrialLog(RunFolder(str(tmp_path)), "group-0.parquet").trials == trials
    assert trials_table(trials).column_names == ["group", "number", *(p for p, _ in space.by_path), "reward"]


def planned(out, **options):
    return plan_tune(TuneConfig(out=str(out), method="naclip", **options))


def test_the_space_is_the_method_s_own_and_one_group(tmp_path):
    (group,) = planned(tmp_path).groups
    own = NaclipConfig.space()
    assert (group.space.by_path, group.trials) == (tuple(own.items()), 102)
    (grid,) = planned(tmp_path, search={"optimizer": "grid"}, space={"thresholds": [0.25]}).groups
    assert (len(grid.space), grid.trials) == (4, 4)
    assert grid.space.at((0, 1)) == PathSetting((("masks.threshold", 0.25), ("masks.blur", 0.01)))


def test_rewards_are_named_by_what_they_depend_on_but_is_not_searched(tmp_path):
    usual = planned(tmp_path).reward_folder([])
    same = ({"masks": {"threshold": 0.3, "blur": 0.1, "crf": {"name": "off"}}}, {"space": {"blurs": [0.0]}})
    assert [planned(tmp_path, **change).reward_folder([]) for change in same] == [usual, usual]
    for change in ({"masks": {"background": "never"}}, {"salience": {"candidates": {"source": "vocabulary"}}}):
        assert planned(tmp_path, **change).reward_folder([]) != usual
    scaled = plan_tune(TuneConfig(out=str(tmp_path), method={"name": "naclip", "scale": 20}))
    assert scaled.reward_folder([]) != usual
