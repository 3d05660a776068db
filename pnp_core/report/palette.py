"""Colours of classes for people's eyes: on the page, the contact sheet and in notebooks. Files that are handed on keep
the colours of their dataset.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

COLOURS = 40
"""Classes that have a colour of their own; the label after them has the first one again (see `display_palette`)."""
APART = 12.0
"""Two of the colours differ by at least so much (CIEDE2000; 2.3 is a difference that one just sees)."""
FROM_GREY = 25.0
"""Each differs from mid-grey, #808080, by at least so much."""
_LIGHTNESS, _CHROMA = (38.0, 88.0), 40.0
"""Of CIELAB: no near-black, no near-white, nothing pale."""
_STEP = 15
"""Of the grid of sRGB colours among which they are searched."""

_NARROW = np.dtype(np.uint8)

DISPLAY: tuple[str, ...] = (
    *("#6900ff", "#00d200", "#ffa500", "#ff87ff", "#c30000", "#006900", "#ff8778", "#00c3ff"),
    *("#d20078", "#785a00", "#2d78e1", "#00f0d2", "#969600", "#a5b4ff", "#e1e187", "#3ca578"),
    *("#c3691e", "#9669d2", "#ff004b", "#3c9600", "#ff78a5", "#874b87", "#f000e1", "#ff3c0f"),
    *("#ffb487", "#96f0a5", "#ffd200", "#3ce1f0", "#96b469", "#963c4b", "#874b1e", "#5a5aa5"),
    *("#b4871e", "#b4f000", "#69780f", "#d2b469", "#4ba5ff", "#b400c3", "#ff872d", "#b496e1"),
)
"""Colours of the labels 1 to 40, as `farthest_colours` finds them."""


def display_palette(labels: np.dtype[Any] = _NARROW) -> UInt8[np.ndarray, "N 3"]:
    """Colours in sRGB of all labels of a type: black for 0, then those of `DISPLAY`, over and over.

    Each round differs from the one before by 1 in green, then in blue, then in red, which nobody sees: a program can
    tell the label of a pixel, of the first 20,480.

    >>> display_palette(np.dtype(np.uint16))[[0, 1, 41, 321]].tolist()
    [[0, 0, 0], [105, 0, 255], [105, 1, 255], [105, 0, 254]]
    """
    return _palette(labels).copy()


@lru_cache
def _palette(labels: np.dtype[Any]) -> np.ndarray:
    table = np.array([list(bytes.fromhex(colour[1:])) for colour in DISPLAY], dtype=np.int16)
    rounds, place = np.divmod(np.arange(np.iinfo(labels).max + 1) - 1, COLOURS)
    palette = table[place]
    # Below the step of the grid that colours are from, so that none becomes another one.
    for channel, unit in ((1, 1), (2, 8), (0, 64)):
        palette[:, channel] += np.where(palette[:, channel] < 255, 1, -1) * (rounds // unit % 8)
    palette[0] = 0
    return palette.astype(np.uint8)


def farthest_colours(number: int) -> list[str]:
    """Colours (#rrggbb) that are far from each other, from black, white and mid-grey: each next one is the farthest
    from all before it, so that few classes get the clearest colours.
    """
    steps = np.arange(0, 256, _STEP)
    colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    places = cielab(colours)
    chroma = np.hypot(places[:, 1], places[:, 2])
    fit = (places[:, 0] >= _LIGHTNESS[0]) & (places[:, 0] <= _LIGHTNESS[1]) & (chroma >= _CHROMA)
    fit &= delta_e(places, cielab(np.array([128, 128, 128]))) >= FROM_GREY
    colours, places = colours[fit], places[fit]
    taken = cielab(np.array([[128] * 3, [0] * 3, [255] * 3]))
    distance = delta_e(places[:, None], taken[None]).min(axis=1)
    chosen = []
    for _ in range(number):
        farthest = int(distance.argmax())
        chosen.append(f"#{bytes(colours[farthest].astype(np.uint8)).hex()}")
        distance = np.minimum(distance, delta_e(places, places[farthest]))
    return chosen


def cielab(colours: np.ndarray) -> Float[np.ndarray, "... 3"]:
    """Colours of sRGB (..., 3), 0 to 255, as lightness, a and b of CIELAB (D65).

    >>> cielab(np.array([[255, 255, 255], [128, 128, 128]])).round(1)[:, 0].tolist()
    [100.0, 53.6]
    """
    share = np.asarray(colours) / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def delta_e(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How different colours of CIELAB (..., 3) look: CIEDE2000 (Sharma, Wu and Dalal 2005), shapes broadcast."""
    (l1, a1, b1), (l2, a2, b2) = np.moveaxis(one, -1, 0), np.moveaxis(other, -1, 0)
    greyish = 1.5 - 0.5 * _seventh((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2)
    a1, a2 = greyish * a1, greyish * a2
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)), np.degrees(np.arctan2(b2, a2))
    turn = np.where(c1 * c2 == 0, 0.0, (h2 - h1 + 180) % 360 - 180)
    hue = np.where(c1 * c2 == 0, h1 + h2, h1 + turn / 2)
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    t = 1 - 0.17 * _cos(hue - 30) + 0.24 * _cos(2 * hue) + 0.32 * _cos(3 * hue + 6) - 0.2 * _cos(4 * hue - 63)
    of_l = 1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2)
    of_c, of_h = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    bend = -2 * _seventh(chroma) * np.sin(np.radians(60 * np.exp(-((((hue % 360) - 275) / 25) ** 2))))
    d_l, d_c = (l2 - l1) / of_l, (c2 - c1) / of_c
    d_h = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / of_h
    return np.sqrt(d_l**2 + d_c**2 + d_h**2 + bend * d_c * d_h)


def _seventh(chroma: np.ndarray) -> np.ndarray:
    return np.sqrt(chroma**7 / (chroma**7 + 25.0**7))


def _cos(degrees: np.ndarray) -> np.ndarray:
    return np.cos(np.radians(degrees))
