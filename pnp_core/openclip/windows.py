"""Windows over a picture: where they lie, and what is seen through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

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


def model_size(size: tuple[int, int], short_side: int, long_side: int) -> tuple[int, int]:
    """Height and width in model pixels of a picture of height and width in pixels.

    Both are multiplied by what brings the shorter one to `short_side`, or the longer one to `long_side` where that is
    less, and rounded.

    >>> model_size((375, 500), 336, 2048), model_size((100, 1000), 336, 2048)
    ((336, 448), (205, 2048))
    """
    factor = min(long_side / max(size), short_side / min(size))
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return height, width


@dataclass(frozen=True)
class Windowed:
    """A picture as the model sees it (h, w, 3) and its windows."""

    pixels: UInt8[np.ndarray, "h w 3"]
    boxes: list[Box]


TOGETHER = 2**22
"""Pairs of tokens that windows are looked at together with at most; each head has a number for each pair."""
See = Callable[[Sequence[np.ndarray]], Float[torch.Tensor, "B gh gw D"]]
"""Patches of windows (h, w, 3) uint8 of one size."""


def through_windows(
    pictures: Sequence[Windowed], see: See, patch: tuple[int, int]
) -> list[Float[torch.Tensor, "gh gw D"]]:
    """Patches of each picture; its windows' grids are laid beside and below each other as the windows lie.

    Windows of one size are looked at together, whatever pictures they are of.

    Args:
        patch: height and width of one, in model pixels.
    """
    windows = [(n, box) for n, one in enumerate(pictures) for box in one.boxes]
    shapes = [(bottom - top, right - left) for _, (top, left, bottom, right) in windows]
    found: dict[int, torch.Tensor] = {}
    for shape in dict.fromkeys(shapes):
        same = [i for i, other in enumerate(shapes) if other == shape]
        step = max(1, TOGETHER // ((shape[0] // patch[0]) * (shape[1] // patch[1]) + 1) ** 2)
        for at in range(0, len(same), step):
            few = same[at : at + step]
            cut = [_cut(pictures[windows[i][0]].pixels, windows[i][1]) for i in few]
            found |= dict(zip(few, see(cut), strict=True))
    return [
        _laid_out([found[i] for i, (n, _) in enumerate(windows) if n == number], one.boxes)
        for number, one in enumerate(pictures)
    ]


def _cut(pixels: np.ndarray, box: Box) -> np.ndarray:
    top, left, bottom, right = box
    return pixels[top:bottom, left:right]


def _laid_out(grids: list[torch.Tensor], boxes: Sequence[Box]) -> torch.Tensor:
    """Grids of windows in the order of their places."""
    columns = len({left for _, left, _, _ in boxes})
    rows = [torch.cat(grids[at : at + columns], dim=1) for at in range(0, len(grids), columns)]
    return torch.cat(rows)
