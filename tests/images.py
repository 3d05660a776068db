"""A photograph, and how pictures of tests are written and read."""

from __future__ import annotations

import io
from importlib.resources import files

import numpy as np
import tifffile
from PIL import Image

from pnp_core.inputs.images import DecodedImage, decode_image

PHOTOGRAPH = (
    Image.open(io.BytesIO((files("pnp_core") / "_photographs/cat.jpg").read_bytes())).convert("RGB").resize((96, 64))
)
RGB = np.asarray(PHOTOGRAPH)


def decoded(data: bytes) -> DecodedImage:
    """A picture as the pipeline reads it."""
    return decode_image(data, 10**8)


def tiff(*pages: tuple[np.ndarray, dict]) -> bytes:
    """A TIFF of pages, each with what tifffile is told beside its pixels."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for pixels, how in pages:
            writer.write(pixels, **{"photometric": "rgb", "metadata": None, **how})
    return buffer.getvalue()


def saved(image: Image.Image, name: str, **how) -> bytes:
    """A picture as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, format=name, **how)
    return buffer.getvalue()


def off(pixels: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of any value."""
    return float(np.abs(pixels.astype(float) - expected).max())
