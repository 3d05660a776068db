"""Proposals of a picture as one map of pieces: pixels that the same proposals hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image
from PIL.Image import Resampling

from pnp_core.errors import UnusableImage

MOST = 2**24
"""Pieces that are told apart: up to here float32 holds every number."""
WIDEST = 2
"""Longer sides of a picture that a square is long at most."""
Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels; bottom and right are the first ones outside."""


@dataclass(frozen=True)
class Pieces:
    """Proposals of a picture.

    Attributes:
        ids: (H, W) int32, the piece of each pixel from 1, 0 where nothing is proposed.
        held: of each proposal the numbers of its pieces.
        boxes: of each proposal.
    """

    ids: Int[np.ndarray, "H W"]
    held: tuple[tuple[int, ...], ...]
    boxes: tuple[Box, ...]

    @property
    def number(self) -> int:
        """How many pieces there are."""
        return int(self.ids.max(initial=0))

    def mask(self, proposal: int, box: Box) -> Bool[np.ndarray, "h w"]:
        """Where a proposal is in a box of the picture."""
        own = np.zeros(self.number + 1, dtype=bool)
        own[list(self.held[proposal])] = True
        top, left, bottom, right = box
        return own[self.ids[top:bottom, left:right]]


def apart(ids: Int[np.ndarray, "H W"], least: float) -> Pieces:
    """Pieces that are a proposal each.

    Args:
        ids: numbers from 1, 0 for none.
        least: share of the picture that one must cover.
    """
    sizes = np.bincount(ids.ravel())
    kept = np.flatnonzero(sizes >= max(1, least * ids.size))
    kept = kept[kept > 0]
    numbers = np.zeros(len(sizes), dtype=np.int32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    ids = numbers[ids]
    return Pieces(ids, tuple((number,) for number in range(1, len(kept) + 1)), tuple(_boxes(ids, len(kept))))


def _boxes(ids: np.ndarray, number: int) -> list[Box]:
    rows, columns = np.nonzero(ids)
    held = ids[rows, columns]
    low, high = np.full((2, number + 1), max(ids.shape)), np.zeros((2, number + 1), dtype=int)
    for axis, places in enumerate((rows, columns)):
        np.minimum.at(low[axis], held, places)
        np.maximum.at(high[axis], held, places + 1)
    return [(int(low[0, n]), int(low[1, n]), int(high[0, n]), int(high[1, n])) for n in range(1, number + 1)]


def overlapping(masks: Iterable[Bool[np.ndarray, "H W"]], size: tuple[int, int], least: float) -> Pieces:
    """Pieces of proposals that may overlap; of masks one at a time is in memory.

    Args:
        size: H, W.
        least: share of the picture that one must cover.

    Raises:
        UnusableImage: they overlap in more ways than can be told apart.
    """
    ids = np.zeros(size, dtype=np.int32)
    holders: list[list[int]] = [[]]
    boxes: list[Box] = []
    for mask in masks:
        if mask.sum() < max(1, least * ids.size):
            continue
        _split(ids, mask, holders, len(boxes))
        boxes.append(_box(mask))
        if len(holders) > MOST:
            raise UnusableImage(f"its proposals overlap in more than {MOST} ways")
    held = [[piece for piece in range(1, len(holders)) if number in holders[piece]] for number in range(len(boxes))]
    return Pieces(ids, tuple(map(tuple, held)), tuple(boxes))


def _split(ids: np.ndarray, mask: np.ndarray, holders: list[list[int]], proposal: int) -> None:
    """Give a proposal its pieces: those that it covers whole, and the covered parts of others as new ones."""
    inside = np.bincount(ids[mask], minlength=len(holders))
    whole = inside == np.bincount(ids.ravel(), minlength=len(holders))
    numbers = np.arange(len(holders), dtype=np.int32)
    for piece in np.flatnonzero(inside):
        if piece and whole[piece]:
            holders[piece].append(proposal)
        else:
            numbers[piece] = len(holders)
            holders.append([*holders[piece], proposal])
    ids[mask] = numbers[ids[mask]]


def _box(mask: np.ndarray) -> Box:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def cut_out(
    image: UInt8[np.ndarray, "H W 3"], pieces: Pieces, proposal: int, expand: float, side: int
) -> tuple[UInt8[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"]]:
    """A square around a proposal at a model's size, and where the proposal is in it.

    The square is as long as its box times `expand`, at most `WIDEST` times the picture's longer side, around the
    middle; it may leave the picture, where nothing is.
    """
    top, left, bottom, right = pieces.boxes[proposal]
    widest = WIDEST * max(image.shape[:2])
    length = min(widest, max(1, round(max(bottom - top, right - left) * expand)))
    top, left = (top + bottom - length) // 2, (left + right - length) // 2
    height, width = image.shape[:2]
    inner = max(top, 0), max(left, 0), min(top + length, height), min(left + length, width)
    place = slice(inner[0] - top, inner[2] - top), slice(inner[1] - left, inner[3] - left)
    pixels, covered = np.zeros((length, length, 3), np.uint8), np.zeros((length, length), np.uint8)
    pixels[place] = image[inner[0] : inner[2], inner[1] : inner[3]]
    covered[place] = pieces.mask(proposal, inner) * np.uint8(255)
    sized = np.asarray(Image.fromarray(pixels).resize((side, side), Resampling.BICUBIC))
    share = np.asarray(Image.fromarray(covered).resize((side, side), Resampling.BILINEAR))
    return sized, share >= max(1, share.max() / 2)  # a thin one would be lost at a half of all
