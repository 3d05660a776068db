from typing import Annotated

from pnp_core.frozen import NO_RESULT, NO_SCORE, Config, Newer


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
