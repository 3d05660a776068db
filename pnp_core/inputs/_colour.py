"""Embedded colour profiles: to sRGB, as a viewer does."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

_SPACES = {"1": "GRAY", "L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_UNSEEN = 2
"""Steps of 255 that a profile may move a colour and is still sRGB: programs round its curves differently."""
IGNORED = "embedded colour profile ignored"


def to_rgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    """A picture without opacity as RGB, its colours brought to sRGB.

    Pictures whose profile is sRGB itself keep their values.

    Args:
        profile: ICC profile embedded in its file.

    Returns:
        The picture in mode RGB, and what was done, for people; empty when nothing was.
    """
    plain = image.convert("RGB") if image.mode in ("P", "PA") else image
    space = _SPACES.get(plain.mode)
    note = ""
    if isinstance(profile, bytes) and profile and space:
        try:
            embedded, transform = _transform(profile)
            if embedded == space and transform:
                source = plain.convert("L") if plain.mode == "1" else plain
                return transform.apply(source), "colours converted to sRGB by the embedded profile"
            if embedded != space and transform:
                note = f"{IGNORED}: it is for {embedded} pictures, not {space}"
        except (ImageCms.PyCMSError, OSError, ValueError, KeyError) as error:
            note = f"{IGNORED}: {' '.join(str(error).split())}"[:200]
    return plain if plain.mode == "RGB" else plain.convert("RGB"), note


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The colour space that a profile is for, and how to bring it to sRGB; None when it is sRGB to the eye."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    core: Any = opened.profile
    space = core.xcolor_space.strip()
    mode = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}.get(space)
    if mode is None:
        raise ValueError(f"it is for {space} pictures")
    transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return space, transform
    samples = _samples(mode)
    moved = np.abs(np.asarray(transform.apply(samples), int) - np.asarray(samples.convert("RGB"), int))
    return space, transform if moved.max() > _UNSEEN else None


def _samples(mode: str) -> Image.Image:
    """Colours from all over the cube, or all greys."""
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    return Image.fromarray(cube.reshape(16, 256, 3))
