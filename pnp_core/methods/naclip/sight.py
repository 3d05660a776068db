"""Sizes of NACLIP's pictures: as the model sees them, their windows, and from stored grids back to pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from pnp_core.masks.cosines import windows_to_pixels
from pnp_core.methods.naclip.config import NaclipConfig
from pnp_core.openclip.windows import Box, model_size, window_boxes


def seen_size(size: tuple[int, int], config: NaclipConfig) -> tuple[int, int]:
    """Height and width in model pixels of a picture of height and width in pixels, see `model_size`.

    >>> seen_size((375, 500), NaclipConfig()), seen_size((100, 1000), NaclipConfig())
    ((336, 448), (205, 2048))
    """
    return model_size(size, config.short_side, config.long_side)


def boxes_of(seen: tuple[int, int], config: NaclipConfig) -> list[Box]:
    """The windows of a picture in model pixels; one without windows."""
    side = config.window.side if config.window else max(seen)
    return window_boxes(seen, side, config.window.stride if config.window else side)


def to_pixels(
    maps: Float[np.ndarray, "Q gh gw"], seen: tuple[int, int], size: tuple[int, int], config: NaclipConfig
) -> Float[np.ndarray, "Q H W"]:
    """Stored maps at a size in pixels, see `windows_to_pixels`.

    Args:
        maps: the windows' grids laid beside and below each other, see `NaclipMethod`.
        seen: h, w in model pixels.
    """
    return windows_to_pixels(maps, boxes_of(seen, config), seen, size)
