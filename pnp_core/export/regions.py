"""Regions of a label map: all pixels of a class, or its connected pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Integer, Num

from pnp_core.masks.components import components, row_runs


@dataclass(frozen=True)
class Region:
    """Pixels of one class.

    Attributes:
        label: of the class.
        top, left: of the box around it, image pixels.
        inside: (h, w) of that box, which of its pixels belong to it.
        area: pixels.
        score: mean confidence in [0, 1]; None where the run kept none.
    """

    label: int
    top: int
    left: int
    inside: Bool[np.ndarray, "h w"]
    area: int
    score: float | None

    def whole(self, size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
        """The region in an image of a size (H, W)."""
        height, width = self.inside.shape
        full = np.zeros(size, dtype=bool)
        full[self.top : self.top + height, self.left : self.left + width] = self.inside
        return full


def regions(
    labels: Integer[np.ndarray, "H W"], confidence: Num[np.ndarray, "H W"] | None, by_component: bool
) -> Iterator[Region]:
    """The regions of an image, in the order of their labels, those of one label in the order of their first pixels.

    Args:
        labels: 0 is none.
        confidence: 0..255.
        by_component: each 8-connected piece is a region, not each class.

    >>> image = np.array([[1, 0, 2], [0, 1, 2], [1, 0, 0]])
    >>> [(r.label, r.top, r.left, r.area) for r in regions(image, None, by_component=True)]
    [(1, 0, 0, 3), (2, 0, 2, 2)]
    """
    numbers = components(labels) if by_component else labels
    boxes = _boxes(numbers)
    of = {number: int(labels[top, :][numbers[top, :] == number][0]) for number, (top, *_) in boxes.items()}
    for number in sorted(boxes, key=lambda number: (of[number], number)):
        top, bottom, left, right = boxes[number]
        box = slice(top, bottom), slice(left, right)
        inside = numbers[box] == number
        score = None if confidence is None else float(confidence[box][inside].mean()) / 255
        yield Region(of[number], top, left, inside, int(inside.sum()), score)


def _boxes(numbers: Integer[np.ndarray, "H W"]) -> dict[int, tuple[int, int, int, int]]:
    """First row, row behind the last, first column, column behind the last of every number but 0."""
    starts, lengths = row_runs(numbers)
    row, column = np.divmod(starts, numbers.shape[1])
    found, which = np.unique(numbers.ravel()[starts], return_inverse=True)
    box = np.empty((4, len(found)), dtype=np.int64)
    box[::2], box[1::2] = numbers.size, 0
    np.minimum.at(box[0], which, row)
    np.maximum.at(box[1], which, row + 1)
    np.minimum.at(box[2], which, column)
    np.maximum.at(box[3], which, column + lengths)
    return {int(number): tuple(box[:, n].tolist()) for n, number in enumerate(found) if number}


def unfit_pieces(
    labels: Integer[np.ndarray, "H W"],
    confidence: Num[np.ndarray, "H W"] | None,
    min_area: int,
    min_confidence: float,
) -> tuple[Bool[np.ndarray, "H W"], int]:
    """Connected pieces that are too small or too unsure, and how many these are.

    Args:
        labels: 0 is none.
        confidence: 0..255; needed where there is a least one.
        min_area: least pixels of a piece.
        min_confidence: least mean confidence of a piece, in [0, 1].

    >>> where, number = unfit_pieces(np.array([[1, 1, 0, 1]]), None, 2, 0.0)
    >>> where.tolist(), number
    ([[False, False, False, True]], 1)
    """
    numbers: Int[np.ndarray, "H W"] = components(labels)
    areas = np.bincount(numbers.ravel())
    unfit = areas < min_area
    if confidence is not None:
        unfit |= np.bincount(numbers.ravel(), confidence.ravel()) / np.maximum(areas, 1) < min_confidence * 255
    unfit[0] = False
    return unfit[numbers], int(unfit.sum())
