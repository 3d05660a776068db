"""Images to the size that a model sees them at, as OpenCV does it: to the byte what published methods were run with."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, UInt8

from pnp_core.masks.grids import half_pixel_matrix

_ONE = 2048
"""OpenCV's weights are whole numbers of this part."""


def resize_bytes(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Bilinear, not smoothed where it makes smaller: `cv2.resize` with INTER_LINEAR, in whole numbers as there.

    Args:
        size: h, w.
    """
    if image.shape[:2] == size:
        return image
    (top, bottom, down), (left, right, along) = (_places(*sides) for sides in zip(size, image.shape[:2], strict=True))
    # int32 holds it: 255 * 2048 along a row; shifted by 4 before it is weighted again.
    rows = [row.astype(np.int32) for row in (image[:, left], image[:, right])]
    mixed = rows[0] * (_weights(1 - along))[:, None] + rows[1] * _weights(along)[:, None]
    upper, lower = mixed[top] >> 4, mixed[bottom] >> 4
    total = (upper * _weights(1 - down)[:, None, None] >> 16) + (lower * _weights(down)[:, None, None] >> 16)
    return np.clip((total + 2) >> 2, 0, 255).astype(np.uint8)


def there_and_back(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> Float[np.ndarray, "H W 3"]:
    """An image at its own size with the detail of another: resized to that as `resize_bytes`, and bilinear back.

    Returns:
        float32 in 0..255.
    """
    small = resize_bytes(image, size).astype(np.float32)
    rows, columns = half_pixel_matrix(image.shape[0], size[0]), half_pixel_matrix(image.shape[1], size[1])
    return np.ascontiguousarray((rows @ small.transpose(2, 0, 1) @ columns.T).transpose(1, 2, 0))


def _places(size: int, source: int) -> tuple[Int[np.ndarray, " s"], Int[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """For each of `size` pixels the one of `source` at or before its middle, the next, and the share of that."""
    place = ((np.arange(size) + 0.5) * (1 / (size / source)) - 0.5).astype(np.float32)
    first = np.floor(place).astype(int)
    share = np.where((first < 0) | (first >= source - 1), np.float32(0), place - first.astype(np.float32))
    first = np.clip(first, 0, source - 1)
    return first, np.minimum(first + 1, source - 1), share.astype(np.float32)


def _weights(share: Float[np.ndarray, " s"]) -> Int[np.ndarray, " s"]:
    return np.rint(share * np.float32(_ONE)).astype(np.int32)
