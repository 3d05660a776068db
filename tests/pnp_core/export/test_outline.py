"""Outlines give back the pixels that they are of, hand-drawn ones and any."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import binary_fill_holes

from pnp_core.export.outline import INSET, outline
from pnp_core.export.regions import regions

SMALL = array_shapes(min_dims=2, max_dims=2, max_side=12)


def drawn(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


def filled(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """As ultralytics and supervision make a mask of a polygon: points cut to whole numbers, filled with the border."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    return mask.astype(bool)


def test_a_pixel_is_a_square_a_little_smaller():
    near, far = INSET, 1 - INSET
    assert outline(drawn("#")).tolist() == [[far, near], [far, far], [near, far], [near, near]]


@pytest.mark.parametrize(
    "shape",
    [
        drawn("##.", ".##"),
        drawn("#.", ".#"),
        drawn("#.#", ".#.", "#.#"),
        drawn(".#.", "###", ".#."),
        drawn("#", "#", "#"),
    ],
    ids=["step", "corner to corner", "cross of corners", "plus", "line"],
)
def test_hand_drawn_shapes_come_back_to_the_pixel(shape):
    points = outline(shape)
    assert len(points) >= 4
    assert np.array_equal(filled(points, shape.shape), shape)


def test_a_hole_is_filled():
    ring = drawn("###", "#.#", "###")
    assert filled(outline(ring), ring.shape).all()


def area(points: np.ndarray) -> float:
    x, y = points.T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def test_area_of_the_polygon_is_that_of_the_pixels():
    shape = drawn(".##.", "####", ".##.")
    assert area(outline(shape)) == pytest.approx(8, abs=14 * INSET)


@given(arrays(np.uint8, SMALL, elements=st.integers(0, 2)))
def test_any_connected_piece_comes_back_with_its_holes_filled(labels):
    for region in regions(labels, None, by_component=True):
        assert np.array_equal(filled(outline(region.inside), region.inside.shape), binary_fill_holes(region.inside))


@given(
    arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 1, 255, 1203]))
)
def test_regions_put_together_are_the_image(labels):
    for by_component in (False, True):
        built = np.zeros_like(labels)
        found = list(regions(labels, None, by_component))
        for region in found:
            whole = region.whole(labels.shape)
            assert whole.sum() == region.area
            assert not built[whole].any()
            built[whole] = region.label
        assert np.array_equal(built, labels)
        assert [region.label for region in found] == sorted(region.label for region in found)
