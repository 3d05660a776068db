import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pnp_core.openclip.windows import window_boxes


def test_windows_of_the_method_are_as_counted_by_hand():
    boxes = window_boxes(
        (336, 448), 224, 112
    )  # (336 - 224 + 111) // 112 + 1 = 2 rows, (448 - 224 + 111) // 112 + 1 = 3
    assert [box[:2] for box in boxes] == [(top, left) for top in (0, 112) for left in (0, 112, 224)]
    assert {(bottom - top, right - left) for top, left, bottom, right in boxes} == {(224, 224)}


def test_the_last_window_is_moved_back_inside():
    assert window_boxes((224, 500), 224, 112) == [(0, left, 224, left + 224) for left in (0, 112, 224, 276)]


def test_a_small_picture_is_one_window():
    assert window_boxes((100, 90), 224, 112) == [(0, 0, 100, 90)]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.data())
def test_windows_cover_the_picture_and_are_of_one_size(height, width, side, data):
    boxes = window_boxes((height, width), side, data.draw(st.integers(1, side)))
    assert len({(bottom - top, right - left) for top, left, bottom, right in boxes}) == 1
    times = np.zeros((height, width), int)
    for top, left, bottom, right in boxes:
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        times[top:bottom, left:right] += 1
    assert times.min() > 0
    assert boxes == sorted(set(boxes)), "row by row, none twice"
