"""Pictures of more than 8 bits as ones of 8, from the range that they use."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from PIL import Image

from pnp_core.errors import UnreadableImage
from pnp_core.inputs._tiff import Page

_SCALED = "brightness scaled to 8 bits"


def to_8_bits(values: np.ndarray, bits: int | None = None) -> tuple[np.ndarray, list[str]]:
    """Values of more than 8 bits, or floats, to uint8; the range must be one that can be told.

    Cameras put 10, 12 or 14 bits in 16: what stays under an eighth of 16 bits is taken for that, but not a dark picture
    of 8 bits in both of whose bytes each value stands.

    Args:
        bits: what the file says of them, where it says it.

    Returns:
        The values, and notes for people.

    Raises:
        UnreadableImage: values of no known range.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(values).all() or low < 0 or high > 65535:
        raise UnreadableImage(f"grey values from {low:g} to {high:g}: convert the picture to 8 or 16 bits")
    if values.dtype == np.uint8:
        return values, []
    top = 2**bits - 1 if bits else _top(values, high)
    guessed = not bits and top < 65535 and (top > 255 or (top == 255 and values.dtype.itemsize == 2))
    notes = [_SCALED] + [f"brightest value {high:g}: taken for {(top + 1).bit_length() - 1} bits"] * guessed
    if values.dtype.kind == "f":
        return np.rint(values * (255 / top)).astype(np.uint8), notes
    steps = np.arange(65536)
    table = (steps >> 8 if top == 65535 else np.minimum(np.rint(steps * (255 / top)), 255)).astype(np.uint8)
    return table[values], notes


_EIGHTH = 65536 // 8


def _top(values: np.ndarray, high: float) -> int:
    """The greatest value there can be where the greatest is `high`: that of the narrowest usual range."""
    floats = values.dtype.kind == "f"
    if floats and high <= 1:
        return 1
    doubled = not floats and high > 255 and not (values % 257).any()
    return 65535 if high >= _EIGHTH or doubled else next(top for top in (255, 1023, 4095, 16383) if high <= top)


def grey_in_8_bits(image: Image.Image, page: Page | None, notes: list[str]) -> Image.Image:
    """A grey picture of more than 8 bits as one of 8, with the opacity that a transparent value stands for."""
    values, clear = np.asarray(image), image.info.get("transparency")
    # PGM says its range, and Pillow has brought it to 16 bits; so has whoever wrote a PNG that says how many they were.
    full = (image.format == "PPM" and image.mode != "F") or FULL_RANGE in image.info
    known = 16 if full else None
    eight, range_notes = to_8_bits(values, 12 if page and page.bits == 12 else known)
    notes += range_notes
    if page and page.white_is_zero:
        eight = 255 - eight
    grey = Image.fromarray(eight)
    if clear is not None and (values == clear).any():
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    grey.info = {name: image.info[name] for name in ("icc_profile", "gamma") if name in image.info}
    return grey


FULL_RANGE = "sBIT"
"""Under which name a picture's `info` has that its values were brought to all of its bits."""


def says_its_bits(data: bytes) -> bool:
    """Whether a PNG has the chunk sBIT, which Pillow passes over."""
    position = len(_PNG)
    while data.startswith(_PNG) and (kind := data[position + 4 : position + 8]) not in (b"IDAT", b""):
        if kind == b"sBIT":
            return True
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return False


_PNG = b"\x89PNG\r\n\x1a\n"
_PLANES = 284
# Of values of 16 bits Pillow keeps the upper byte. In the other byte order that is the lower one.
_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def lower_bytes(image: Image.Image) -> str | None:
    """How Pillow is told to keep the lower bytes of RGB of 16 bits; None for other pictures.

    Of planes it cannot be told so.

    Args:
        image: opened and not yet decoded.
    """
    kinds = {_kind(tile.args) for tile in getattr(image, "tile", ())}
    kind = kinds.pop() if len(kinds) == 1 else ""
    planes = getattr(image, "tag_v2", {}).get(_PLANES, 1)
    deep = image.format in ("PNG", "TIFF") and kind.startswith("RGB;16") and kind[-1] in _SWAPPED
    told = not {"transparency", FULL_RANGE}.isdisjoint(image.info)
    return kind[:-1] + _SWAPPED[kind[-1]] if deep and planes == 1 and not told else None


def _kind(args: object) -> str:
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def uses_little(image: Image.Image) -> bool:
    """Whether the upper bytes alone show that a picture stays under an eighth of its range."""
    return int(np.asarray(image).max()) < _EIGHTH >> 8


def spread(image: Image.Image, again: Any, lower: str) -> list[str]:
    """Put a picture's values of 16 bits, in the range that they use, in place of their upper bytes.

    Args:
        image: RGB, the upper bytes.
        again: the same picture, not yet decoded.
        lower: see `lower_bytes`.

    Returns:
        Notes for people.
    """
    with again:
        again.tile = [
            tile._replace(args=(lower, *tile.args[1:]) if isinstance(tile.args, tuple) else lower)
            for tile in again.tile
        ]
        again.load()
        values = (np.asarray(image).astype(np.uint16) << 8) | np.asarray(again)
    eight, notes = to_8_bits(values)
    image.paste(Image.fromarray(eight))
    return notes
