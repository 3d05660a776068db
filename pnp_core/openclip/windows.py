"""Windows over a picture: where they lie."""

from __future__ import annotations

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
