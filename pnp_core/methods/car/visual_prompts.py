"""How a class is shown to the classifier: what is outside of it blurred or grey, a line around it.

The released code leaves this to OpenCV; here it is done as there, in whole numbers.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw

from pnp_core.methods.car.config import VisualPrompt

_GAUSSIAN = (1, 3, 6, 12, 20, 30, 36, 40, 36, 30, 20, 12, 6, 3, 1)
"""OpenCV's weights in 1/256 of 15 pixels where no sigma is given: 0.3 ((15 - 1) / 2 - 1) + 0.8 = 2.6 pixels."""
_GREY = (3735, 19235, 9798)
"""OpenCV's weights of blue, green and red in 1/32768, in the order in which the released code takes them of red, green
and blue."""


def around(image: UInt8[np.ndarray, "H W 3"], prompts: Collection[VisualPrompt]) -> UInt8[np.ndarray, "H W 3"]:
    """What is shown outside of a class: the picture blurred, then grey, as far as that is asked for."""
    outside = blurred(image) if "blur" in prompts else image
    return grey(outside) if "gray" in prompts else outside


def shown(
    image: UInt8[np.ndarray, "H W 3"],
    outside: UInt8[np.ndarray, "H W 3"],
    inside: Bool[np.ndarray, "H W"],
    prompts: Collection[VisualPrompt],
) -> UInt8[np.ndarray, "H W 3"]:
    """A picture as it is shown for a class.

    Args:
        outside: see `around`.
        inside: where the class may be; somewhere.
    """
    made = np.where(inside[..., None], image, outside)
    if "circle" in prompts:
        made[ellipse_around(inside)] = (255, 0, 0)
    return made


def blurred(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """A Gaussian of 15 x 15 pixels, mirrored at the border pixels: `cv2.GaussianBlur(image, (15, 15), 0)`."""
    reach, made = len(_GAUSSIAN) // 2, image.astype(np.int32)
    for axis in (1, 0):
        wide = np.pad(made.swapaxes(0, axis), [(reach, reach), (0, 0), (0, 0)], mode="reflect")
        size = image.shape[axis]
        made = np.zeros_like(wide[:size])
        for i, weight in enumerate(_GAUSSIAN):
            made += weight * wide[i : i + size]
        made = made.swapaxes(0, axis)
    return ((made + 2**15) >> 16).astype(np.uint8)


def grey(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Shades of grey, three times the same channel. Red and blue have each other's weight, as in the released code."""
    total = image.astype(np.int32) @ np.array(_GREY, dtype=np.int32)
    return np.repeat(((total + 2**14) >> 15).astype(np.uint8)[..., None], 3, axis=2)


def ellipse_around(inside: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """A line of one pixel: an ellipse around the mean of a region's pixels, as high and wide as it.

    It need not enclose the region; what lies outside of the picture is left out. As OpenCV it is a polygon, of coarser
    steps the smaller it is; one pixel in 20 of OpenCV's line lies beside it.
    """
    places = [(int(one.mean()), int(one.max() - one.min() + 1) // 2) for one in np.nonzero(inside)]
    (row, height), (column, width) = places
    step = next((step for below, step in ((3, 90), (10, 30), (15, 18)) if max(height, width) < below), 5)
    angle = np.deg2rad(np.arange(0, 360 + step, step))
    corners = np.rint([column + width * np.cos(angle), row + height * np.sin(angle)]).astype(int)
    line = Image.new("1", inside.shape[::-1])
    ImageDraw.Draw(line).line([(int(x), int(y)) for x, y in corners.T], fill=1)
    return np.array(line)
