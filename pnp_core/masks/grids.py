"""Maps on a patch grid to channels on image pixels: scaling, resizing, blurring.

Resizing and blurring are linear and separable, so each is a product with two small matrices, built once per size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

_TRUNCATE = 4.0


def min_max(maps: Float[np.ndarray, "C h w"]) -> Float[np.ndarray, "C h w"]:
    """Scale each map to [0, 1]; a constant map becomes 0 (there is nothing to tell apart)."""
    low = maps.min(axis=(1, 2), keepdims=True)
    span = maps.max(axis=(1, 2), keepdims=True) - low
    return np.divide(maps - low, span, out=np.zeros_like(maps), where=span > 0)


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


@lru_cache(maxsize=64)
def half_pixel_matrix(size: int, grid: int) -> np.ndarray:
    """Bilinear interpolation between the middles of pixels, borders continued, as a matrix (size, grid); rows sum to 1.

    The same as torch's `interpolate` to that size with mode `bilinear` and corners not aligned.

    >>> half_pixel_matrix(4, 2).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    place = np.clip((np.arange(size) + 0.5) * grid / size - 0.5, 0, grid - 1)
    line = np.minimum(place.astype(int), max(grid - 2, 0))
    matrix = np.zeros((size, grid), dtype=np.float32)
    matrix[np.arange(size), line] = 1 - (place - line)
    matrix[np.arange(size), np.minimum(line + 1, grid - 1)] += (place - line).astype(np.float32)
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
