from typing import Annotated, Literal

from pnp_core.frozen import NO_RESULT, NO_SCORE, OF_MASKS, Config, Newer
from pnp_core.methods.base import Description, MethodConfig


class Part(Config):
    path: Annotated[str, NO_RESULT] = "a"
    size: int = 3


class Whole(Config):
    part: Part = Part()
    out: Annotated[str, NO_SCORE] = "x"
    ties: Annotated[str, Newer("cut")] = "cut"
    name: str = "n"


def test_a_fingerprint_leaves_out_what_is_marked_so_in_every_part():
    assert Whole().facts() == {"part": {"size": 3}, "out": "x", "name": "n"}


def test_a_field_that_is_newer_than_the_first_runs_enters_where_it_is_not_what_those_had():
    assert Whole(ties="keep").facts()["ties"] == "keep"


def test_a_setting_leaves_out_what_changes_no_score_alone():
    assert Whole().setting() == {"part": {"path": "a", "size": 3}, "ties": "cut", "name": "n"}


def test_configuration_is_hashable():
    assert len({Whole(), Whole(), Whole(name="m")}) == 2


class ToyMethod(MethodConfig):
    place = "nowhere:nothing"
    name: Literal["toy"] = "toy"
    grid: int = 3
    cut: Annotated[float, OF_MASKS] = 0.5

    def describe(self) -> Description:
        return Description("w", "m", "r")


def test_settings_of_masks_name_masks_alone_and_no_loaded_model_depends_on_them():
    method = ToyMethod(cut=0.7)
    assert (method.map_facts(), method.mask_facts()) == (
        {"method": {"name": "toy", "grid": 3}},
        {"method": {"cut": 0.7}},
    )
    assert method.without_masks() == ToyMethod()


def test_another_way_to_decide_makes_other_masks_of_the_same_maps():
    newer = type("Newer", (ToyMethod,), {"decides": 2, "__annotations__": {}})()
    assert (newer.map_facts(), newer.mask_facts()) == (ToyMethod().map_facts(), {"method": {"decides": 2, "cut": 0.5}})
