"""Windows over a picture: where they lie, and how what is seen in them becomes one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels; bottom and right are the first ones outside."""


def window_boxes(size: tuple[int, int], side: int, stride: int) -> list[Box]:
    """Windows that cover a picture, row by row; the last ones are moved back inside, so that all are of one size.

    Args:
        size: of the picture, height and width in pixels.
        side: of the windows; where the picture is smaller they are as large as it is.
        stride: from one to the next, 1 to `side`.

    >>> window_boxes((4, 7), 4, 2)
    [(0, 0, 4, 4), (0, 2, 4, 6), (0, 3, 4, 7)]
    """
    tops, lefts = (_starts(length, side, stride) for length in size)
    height, width = (min(side, length) for length in size)
    return [(top, left, top + height, left + width) for top in tops for left in lefts]


def _starts(length: int, side: int, stride: int) -> list[int]:
    number = max(length - side + stride - 1, 0) // stride + 1
    return [max(min(n * stride, length - side), 0) for n in range(number)]


def average_windows(
    seen: Sequence[Float[torch.Tensor, "C h w"]], boxes: Sequence[Box], size: tuple[int, int]
) -> Float[torch.Tensor, "C H W"]:
    """Put together what was seen in windows; where they overlap the mean counts.

    Args:
        seen: of each window, at its size in pixels.
        boxes: which cover all of it.
        size: of the whole, H and W.
    """
    total = seen[0].new_zeros(seen[0].shape[0], *size)
    times = total.new_zeros(size)
    for one, (top, left, bottom, right) in zip(seen, boxes, strict=True):
        total[:, top:bottom, left:right] += one
        times[top:bottom, left:right] += 1
    return total / times
