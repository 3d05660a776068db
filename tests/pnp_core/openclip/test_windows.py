import torch
from hypothesis import given
from hypothesis import strategies as st

from pnp_core.openclip.windows import average_windows, window_boxes


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


def test_where_windows_overlap_the_mean_counts():
    boxes = window_boxes((1, 5), 3, 2)
    assert boxes == [(0, 0, 1, 3), (0, 2, 1, 5)]
    seen = [torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[5.0, 6.0, 7.0]]])]
    assert average_windows(seen, boxes, (1, 5)).tolist() == [[[1, 2, 4, 6, 7]]]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.data())
def test_windows_cover_the_picture_are_of_one_size_and_put_it_together_again(height, width, side, data):
    boxes = window_boxes((height, width), side, data.draw(st.integers(1, side)))
    assert len({(bottom - top, right - left) for top, left, bottom, right in boxes}) == 1
    whole = torch.arange(height * width, dtype=torch.float32).view(1, height, width)
    parts = [whole[:, top:bottom, left:right] for top, left, bottom, right in boxes]
    assert torch.allclose(average_windows(parts, boxes, (height, width)), whole)
