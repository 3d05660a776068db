"""Colours that people can tell apart."""

from __future__ import annotations

import numpy as np
import pytest

from pnp_core.report.palette import (
    APART,
    COLOURS,
    DISPLAY,
    FROM_GREY,
    cielab,
    delta_e,
    display_palette,
    farthest_colours,
)


def places() -> np.ndarray:
    return cielab(display_palette()[1 : COLOURS + 1])


# Pairs of the supplement to Sharma, Wu and Dalal: The CIEDE2000 color-difference formula (2005).
@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_difference_of_colours_is_that_of_the_published_pairs(one, other, expected):
    assert delta_e(np.array([one]), np.array([other])) == pytest.approx(expected, abs=1e-4)


def test_every_pair_of_colours_is_apart():
    pairs = delta_e(places()[:, None], places()[None])
    for number in range(2, COLOURS + 1):
        assert pairs[:number, :number][~np.eye(number, dtype=bool)].min() >= APART


def test_every_colour_is_far_from_grey_and_none_is_nearly_black_or_white():
    assert delta_e(places(), cielab(np.array([128, 128, 128]))).min() >= FROM_GREY
    for extreme in ((0, 0, 0), (255, 255, 255)):
        assert delta_e(places(), cielab(np.array(extreme))).min() >= APART
    assert np.hypot(places()[:, 1], places()[:, 2]).min() >= 40


def test_table_is_what_the_search_finds():
    assert tuple(farthest_colours(COLOURS)) == DISPLAY


def test_labels_beyond_the_table_begin_anew():
    palette = display_palette()
    for label in range(COLOURS + 1, 256):
        assert np.abs(palette[label].astype(int) - palette[label - COLOURS]).tolist() == [0, 1, 0]
    assert len(np.unique(palette[1:], axis=0)) == 255, "a program can tell the label of a colour"
    assert palette[0].tolist() == [0, 0, 0]
