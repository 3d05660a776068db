"""Sizes of NACLIP's pictures: as the model sees them, their windows, and from stored grids back to pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float

from pnp_core.masks.grids import half_pixel_matrix
from pnp_core.methods.naclip.config import NaclipConfig
from pnp_core.openclip.windows import Box, window_boxes


def seen_size(size: tuple[int, int], config: NaclipConfig) -> tuple[int, int]:
    """Height and width in model pixels of a picture of height and width in pixels.

    Both are multiplied by what brings the shorter one to `short_side`, or the longer one to `long_side` where that is
    less, and rounded.

    >>> seen_size((375, 500), NaclipConfig()), seen_size((100, 1000), NaclipConfig())
    ((336, 448), (205, 2048))
    """
    factor = min(config.long_side / max(size), config.short_side / min(size))
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return height, width


def boxes_of(seen: tuple[int, int], config: NaclipConfig) -> list[Box]:
    """The windows of a picture in model pixels; one without windows."""
    side = config.window.side if config.window else max(seen)
    return window_boxes(seen, side, config.window.stride if config.window else side)


def to_pixels(
    maps: Float[np.ndarray, "Q gh gw"], seen: tuple[int, int], size: tuple[int, int], config: NaclipConfig
) -> Float[np.ndarray, "Q H W"]:
    """Stored maps at a size in pixels: each window's bilinear to model pixels, the mean where they overlap, and these
    bilinear to the size. All of it is linear and separable, hence a product with a small matrix each side.

    Args:
        maps: the windows' grids laid beside and below each other, see `NaclipMethod`.
        seen: h, w in model pixels.
    """
    boxes = boxes_of(seen, config)
    tops, lefts = (tuple(sorted({box[axis] for box in boxes})) for axis in (0, 1))
    down = _to_length(size[0], seen[0], tops, boxes[0][2] - boxes[0][0], maps.shape[1])
    along = _to_length(size[1], seen[1], lefts, boxes[0][3] - boxes[0][1], maps.shape[2])
    return down @ maps @ along.T


@lru_cache(maxsize=64)
def _to_length(size: int, seen: int, starts: tuple[int, ...], side: int, cells: int) -> np.ndarray:
    """Along one axis (size, cells): cells of all windows to pixels."""
    each = cells // len(starts)
    joined = np.zeros((seen, cells), dtype=np.float32)
    for number, start in enumerate(starts):
        joined[start : start + side, number * each : (number + 1) * each] = half_pixel_matrix(side, each)
    times = np.zeros((seen, 1), dtype=np.float32)
    for start in starts:
        times[start : start + side] += 1
    return half_pixel_matrix(size, seen) @ (joined / times)
