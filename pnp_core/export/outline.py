"""The outline of a region as a polygon that gives back its pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

INSET = 0.02
"""How far inside of the region's edge the polygon runs, in pixels."""


def outline(inside: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "N 2"]:
    """The outer outline of one 8-connected region; holes in it are passed over.

    It follows the edges of the pixels, a little inside. So its area is the region's, and its points cut to whole
    numbers are pixels of the region: filled with its border, as OpenCV's `fillPoly` does, it is the region again.

    Returns:
        float64 x and y of at least four points, pixels; (0, 0) is the upper left corner of the box.

    >>> outline(np.array([[True, True]])).round().astype(int).tolist()
    [[2, 0], [2, 1], [0, 1], [0, 0]]
    """
    wide = inside.shape[1] + 2
    # A border of nothing all around, so that nobody asks what is beyond.
    on = np.pad(inside, 1).tobytes()
    x = x0 = int(inside[0].argmax())
    y = 0
    dx, dy = 1, 0  # along the top edge of the first pixel; the region is always to the right
    points: list[tuple[float, float]] = []
    while True:
        x, y = x + dx, y + dy
        rx, ry = -dy, dx
        # Of the four pixels around this corner the two ahead; pixel (i, j) is at (j + 1) * wide + i + 1.
        left = on[(y + (dy - ry + 1) // 2) * wide + x + (dx - rx + 1) // 2]
        right = on[(y + (dy + ry + 1) // 2) * wide + x + (dx + rx + 1) // 2]
        if left:
            if right:
                points.append((x + INSET * (dx + rx), y + INSET * (dy + ry)))
            else:  # two pixels meet in this corner alone: from one straight to the other
                points.append((x + INSET * (rx - dx), y + INSET * (ry - dy)))
                points.append((x + INSET * (dx - rx), y + INSET * (dy - ry)))
            dx, dy = -rx, -ry
        elif not right:
            points.append((x + INSET * (rx - dx), y + INSET * (ry - dy)))
            dx, dy = rx, ry
        if (x, y, dx, dy) == (x0, 0, 1, 0):
            return np.array(points)
