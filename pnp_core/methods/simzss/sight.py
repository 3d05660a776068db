"""Sizes of SimZSS's pictures: whole patches wherever a picture is not cut into windows."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from pnp_core.masks.cosines import windows_to_pixels
from pnp_core.methods.simzss.config import PATCH, SimzssConfig
from pnp_core.openclip.windows import Box, model_size, window_boxes


def seen_size(size: tuple[int, int], config: SimzssConfig) -> tuple[int, int]:
    """Height and width in model pixels of a picture of height and width in pixels, see `model_size`.

    A side that windows are not cut from is a multiple of 14, the nearest: DINOv2 takes no others.

    >>> seen_size((375, 500), SimzssConfig()), seen_size((375, 500), SimzssConfig(window=None))
    ((448, 597), (448, 602))
    """
    height, width = (
        side if config.window and side >= config.window.side else max(1, round(side / PATCH)) * PATCH
        for side in model_size(size, config.short_side, config.long_side)
    )
    return height, width


def boxes_of(seen: tuple[int, int], config: SimzssConfig) -> list[Box]:
    """The windows of a picture in model pixels; one without windows."""
    side = config.window.side if config.window else max(seen)
    return window_boxes(seen, side, config.window.stride if config.window else side)


def to_pixels(
    maps: Float[np.ndarray, "Q gh gw"], seen: tuple[int, int], size: tuple[int, int], config: SimzssConfig
) -> Float[np.ndarray, "Q H W"]:
    """Stored maps at a size in pixels, see `windows_to_pixels`.

    Args:
        seen: h, w in model pixels.
    """
    return windows_to_pixels(maps, boxes_of(seen, config), seen, size)
