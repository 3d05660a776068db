"""Salience to label map: threshold, resize, background, blur, CRF, argmax (paper section 3.4).

Frames: maps live on the patch grid (gh, gw), label maps on image pixels (H, W). Resizing and
blurring are linear and separable, so each is a product with two small matrices, built once per
size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image
from PIL.Image import Resampling

from pnp_core.data import ClassMaps
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.refine import get_crf

FEW_CLASSES = 3
"""Scene data gets a background channel below this many candidate classes (authors' rule)."""
_TRUNCATE = 4.0


@dataclass(frozen=True)
class LabelMap:
    """A finished mask.

    Attributes:
        labels: class ids, 0 for background.
        confidence: probability of the winning channel after the CRF.
        salience: per candidate class, the mean of its summed salience map (>= 0).
    """

    labels: UInt8[np.ndarray, "H W"]
    confidence: Float[np.ndarray, "H W"]
    salience: Float[np.ndarray, " C"]


def sum_iterations(
    maps: Float[np.ndarray, "K C gh gw"], how: Literal["plain", "first_twice"]
) -> Float[np.ndarray, "C gh gw"]:
    """Sum over drop iterations; the authors' code adds the first map twice."""
    total = maps.sum(axis=0)
    return total + maps[0] if how == "first_twice" else total


def min_max(maps: Float[np.ndarray, "C h w"]) -> Float[np.ndarray, "C h w"]:
    """Scale each map to [0, 1]; a constant map becomes 0 (there is nothing to tell apart)."""
    low = maps.min(axis=(1, 2), keepdims=True)
    span = maps.max(axis=(1, 2), keepdims=True) - low
    return np.divide(maps - low, span, out=np.zeros_like(maps), where=span > 0)


def threshold(
    maps: Float[np.ndarray, "C gh gw"], at: float, ties: Literal["cut", "keep"] = "cut"
) -> Float[np.ndarray, "C gh gw"]:
    """Keep the raw salience where its min-max is above `at` (with ties kept also where it is `at`), 0 elsewhere."""
    scaled = min_max(maps)
    return np.where(scaled >= at if ties == "keep" else scaled > at, maps, 0)


def grid_places(
    size: int, grid: int | Int[np.ndarray, "g 1"]
) -> tuple[Int[np.ndarray, "... size"], Float[np.ndarray, "... size"]]:
    """Where pixels lie on a grid with aligned corners: the grid line at or before each, and the share of the next.

    In whole numbers: the share of a pixel on a grid line is 0, where `linspace` leaves 1e-15, which no `== 0` finds.

    Args:
        size: pixels, >= 1; a single one lies on the first line.
        grid: lines, >= 1; several grids at once as a column.

    Returns:
        lines in [0, grid - 1] and shares in [0, 1).

    >>> [values.tolist() for values in grid_places(5, 3)]
    [[0, 0, 1, 1, 2], [0.0, 0.5, 0.0, 0.5, 0.0]]
    """
    steps = max(size - 1, 1)
    line, rest = np.divmod(np.arange(size) * (grid - 1), steps)
    return line, rest / steps


@lru_cache(maxsize=64)
def resize_matrix(size: int, grid: int) -> np.ndarray:
    """Bilinear interpolation with aligned corners as a matrix (size, grid); rows sum to 1.

    >>> resize_matrix(3, 2).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    line, share = grid_places(size, grid)
    matrix = np.zeros((size, grid), dtype=np.float32)
    matrix[np.arange(size), line] = 1 - share
    between = np.flatnonzero(share)
    matrix[between, line[between] + 1] = share[between]
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=8)
def blur_matrix(size: int, sigma: float) -> np.ndarray:
    """A Gaussian filter along one axis as a matrix (size, size), mirrored at the borders.

    The same as `scipy.ndimage.gaussian_filter1d` with mode `reflect` and truncation at 4 sigma.
    """
    radius = int(_TRUNCATE * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    place = (np.arange(size)[:, None] + offsets) % (2 * size)
    place = np.where(place < size, place, 2 * size - 1 - place)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], place), kernel)
    matrix = matrix.astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def wants_background(rule: str, classes: int) -> bool:
    """Whether a picture with so many candidate classes gets a background channel.

    Args:
        rule: always, few (fewer than 3 candidates) or never; `auto` must be resolved before.

    >>> wants_background("few", 2), wants_background("few", 3)
    (True, False)
    """
    return {"always": True, "few": classes < FEW_CLASSES, "never": False}[rule]


def channels(
    maps: Float[np.ndarray, "C gh gw"], height: int, width: int, background: bool, sigma: float
) -> Float[np.ndarray, "C2 H W"]:
    """Thresholded maps to blurred image-size channels in [0, 1], background first when wanted.

    The background channel is 1 where every class is 0 after resizing. All channels are blurred,
    then scaled to [0, 1] each.

    Args:
        sigma: of the Gaussian, image pixels; 0 leaves it out.
    """
    rows, columns = resize_matrix(height, maps.shape[1]), resize_matrix(width, maps.shape[2])
    blur_rows, blur_columns = (blur_matrix(height, sigma), blur_matrix(width, sigma)) if sigma > 0 else (None, None)
    smooth_rows = rows if blur_rows is None else blur_rows @ rows
    smooth_columns = columns if blur_columns is None else blur_columns @ columns
    # Resize and blur of a class map in one product each side: (G_h B_h) X (G_w B_w)^T.
    stacked = smooth_rows @ maps.astype(np.float32) @ smooth_columns.T
    if background:
        # Maps are >= 0, so their sum is 0 exactly where all of them are.
        empty = (rows @ maps.sum(axis=0).astype(np.float32) @ columns.T == 0).astype(np.float32)
        if blur_rows is not None and blur_columns is not None:
            empty = blur_rows @ empty @ blur_columns.T
        stacked = np.concatenate([empty[None], stacked])
    return min_max(stacked)


def _shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    longest = max(picture.shape[:2])
    if longest <= side:
        return picture
    height, width = (max(1, round(length * side / longest)) for length in picture.shape[:2])
    return np.array(Image.fromarray(picture).resize((width, height), Resampling.BOX))


def _nearest(size: int, source: int) -> np.ndarray:
    """For each of `size` pixels the one of `source` that covers its centre."""
    return ((np.arange(size) + 0.5) * source / size).astype(int)


def make_label_map(salience: ClassMaps, picture: UInt8[np.ndarray, "H W 3"], config: MaskConfig) -> LabelMap:
    """One picture's salience to its label map, at the picture's own size.

    Without candidate classes it is all background. Pictures with a side over `config.max_side` are
    refined at a smaller size, so that memory has a bound.

    Args:
        config: with `background` other than `auto`.

    Raises:
        UnknownNameError: no such CRF.
    """
    if not salience.classes:
        size = (salience.height, salience.width)
        return LabelMap(np.zeros(size, np.uint8), np.ones(size, np.float32), np.zeros(0, np.float32))
    summed = sum_iterations(salience.maps[: config.passes], config.sum)
    background = wants_background(config.background, len(salience.classes))
    picture = _shrunk(picture, config.max_side)
    height, width = picture.shape[:2]
    sigma = config.blur * max(height, width)
    stacked = channels(threshold(summed, config.threshold, config.ties), height, width, background, sigma)
    probabilities = get_crf(config.crf.name)(stacked, picture, config.crf)
    # A look-up table from channel to class id: renumbering in place collides on unsorted ids.
    ids = np.array([0] * background + list(salience.classes), dtype=np.uint8)
    rows, columns = _nearest(salience.height, height)[:, None], _nearest(salience.width, width)
    return LabelMap(
        labels=ids[probabilities.argmax(axis=0)][rows, columns],
        confidence=probabilities.max(axis=0)[rows, columns],
        salience=summed.mean(axis=(1, 2)).astype(np.float32),
    )
