import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pnp_core.masks.grids import half_pixel_matrix
from pnp_core.methods.naclip.config import NaclipConfig
from pnp_core.methods.naclip.sight import boxes_of, seen_size, to_pixels


def test_sizes_are_those_counted_by_hand():
    config = NaclipConfig()
    assert seen_size((375, 500), config) == (336, 448)
    assert seen_size((333, 500), config) == (336, 505), "500 * 336 / 333 = 504.5"
    assert seen_size((1000, 100), config) == (2048, 205), "the longer side is at its limit: 2.048"
    assert seen_size((3000, 4000), config) == (336, 448)
    assert boxes_of((336, 448), config) == [(0, 0, 336, 448)]


@settings(max_examples=30, deadline=None)
@given(st.integers(20, 60), st.integers(20, 60), st.integers(16, 40), st.data())
def test_windows_of_one_value_are_a_picture_of_it_and_windows_count_where_they_lie(height, width, side, data):
    config = NaclipConfig(window={"side": side, "stride": data.draw(st.integers(1, side))}, short_side=16)
    boxes = boxes_of((height, width), config)
    rows, columns = (len({box[axis] for box in boxes}) for axis in (0, 1))
    np.testing.assert_allclose(
        to_pixels(np.ones((1, rows * 2, columns * 2), np.float32), (height, width), (9, 7), config), 1, atol=1e-5
    )
    values = np.random.default_rng(side).normal(size=(rows, columns, 2, 2)).astype(np.float32)
    total, times = np.zeros((height, width)), np.zeros((height, width))
    for (top, left, bottom, right), grid in zip(boxes, values.reshape(-1, 2, 2), strict=True):
        total[top:bottom, left:right] += (
            half_pixel_matrix(bottom - top, 2) @ grid @ half_pixel_matrix(right - left, 2).T
        )
        times[top:bottom, left:right] += 1
    stored = values.transpose(0, 2, 1, 3).reshape(1, rows * 2, columns * 2)
    made = to_pixels(stored, (height, width), (height, width), config)[0]
    np.testing.assert_allclose(made, total / times, atol=1e-5)
