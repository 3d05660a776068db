"""What a page holds so that it needs no other file: its script and style, and pictures as data URIs."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Resampling

QUALITY = 60
"""Of a photograph in a page."""


def resource(name: str) -> str:
    """A script or style of this package's pages."""
    return (files("pnp_core.report") / "templates" / name).read_text("utf-8")


def digest(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height with a longer side of at most so many pixels, aspect kept."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A label map at a width and height, by nearest neighbour."""
    return np.asarray(Image.fromarray(labels).resize(size, Resampling.NEAREST))


def data_uri(image: Image.Image, **how: Any) -> str:
    """A picture in a URI.

    Args:
        how: for Pillow's `save`, `format` among it.
    """
    buffer = io.BytesIO()
    image.save(buffer, **how)
    kind = str(how["format"]).lower()
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def photo(image: np.ndarray, size: tuple[int, int]) -> str:
    """A photograph (H, W, 3) uint8 at a width and height, as a data URI."""
    small = Image.fromarray(image).resize(size, Resampling.BOX, reducing_gap=2)
    return data_uri(small, format="WEBP", quality=QUALITY, method=2)


def palette_png(indices: np.ndarray, colours: np.ndarray, opacity: Sequence[int]) -> str:
    """A palette PNG with opacity by label; only the colours in use are in the file. As RGBA where they are too many."""
    used, compact = np.unique(indices, return_inverse=True)
    compact = compact.reshape(indices.shape)
    if len(used) > _PALETTE:
        shown = np.column_stack([colours[used], np.array([opacity[i] for i in used], np.uint8)])
        return data_uri(Image.fromarray(shown[compact], mode="RGBA"), format="PNG")
    image = Image.fromarray(compact.astype(np.uint8), mode="P")
    image.putpalette(colours[used].tobytes())
    bits = next(b for b in (1, 2, 4, 8) if len(used) <= 2**b)
    return data_uri(image, format="PNG", bits=bits, transparency=bytes(opacity[i] for i in used))


_PALETTE = 256
"""Colours of a palette PNG at most."""
