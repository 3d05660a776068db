"""The drawable classes of the synthetic scenes: outlines and parts, and the hue a group shares.

Coordinates: shapes are drawn in object units, x right and y down, within [-1, 1] x [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

GROUP_HUES = {"red": 0.99, "yellow": 0.14, "green": 0.34, "blue": 0.58, "purple": 0.81}

Polygon = np.ndarray


@dataclass(frozen=True)
class Part:
    """One filled polygon of an object: ``outline`` (n, 2) in object units, ``role`` of its colour."""

    outline: Polygon
    role: str = "body"


def _disc(x: float, y: float, rx: float, ry: float | None = None, start=0.0, stop=2 * np.pi) -> Polygon:
    angles = np.linspace(start, stop, 40)
    return np.stack([x + rx * np.cos(angles), y + (ry or rx) * np.sin(angles)], axis=1)


def _ring(x: float, y: float, outer: float, inner: float) -> Polygon:
    return np.concatenate([_disc(x, y, outer), _disc(x, y, inner)[::-1]])


def _box(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _points(*points: tuple[float, float]) -> Polygon:
    return np.array(points)


def _heart() -> list[Part]:
    t = np.linspace(0, 2 * np.pi, 60)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return [Part(np.stack([x, y + 2], axis=1) / 16)]


def _mushroom() -> list[Part]:
    spots = [Part(_disc(x, y, 0.15), "light") for x, y in [(-0.45, -0.3), (0.05, -0.6), (0.5, -0.3)]]
    return [
        Part(_box(-0.28, -0.1, 0.28, 0.95), "light"),
        Part(_disc(0, 0, 0.95, 0.9, np.pi, 2 * np.pi)),
        *spots,
    ]


def _car() -> list[Part]:
    wheels = [Part(_disc(x, 0.42, 0.3), "dark") for x in (-0.5, 0.5)]
    return [
        Part(_points((-0.55, -0.05), (-0.35, -0.6), (0.35, -0.6), (0.6, -0.05))),
        Part(_points((-0.35, -0.1), (-0.24, -0.45), (0.24, -0.45), (0.4, -0.1)), "light"),
        Part(_box(-1, -0.1, 1, 0.4)),
        *wheels,
    ]


def _umbrella() -> list[Part]:
    canopy = _disc(0, 0, 1, 0.95, np.pi, 2 * np.pi)
    hook = np.concatenate([_disc(-0.17, 0.7, 0.26, 0.26, 0, np.pi), _disc(-0.17, 0.7, 0.1, 0.1, 0, np.pi)[::-1]])
    stripe = _points((0, -0.93), (0.3, 0), (-0.3, 0))
    return [
        Part(_box(-0.07, -0.05, 0.09, 0.72), "dark"),
        Part(hook, "dark"),
        Part(canopy),
        Part(stripe, "light"),
    ]


def _star() -> list[Part]:
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return [Part(np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1))]


def _key() -> list[Part]:
    return [
        Part(_ring(-0.55, 0, 0.45, 0.2)),
        Part(_box(-0.15, -0.12, 1, 0.12)),
        Part(_box(0.45, 0.1, 0.62, 0.42)),
        Part(_box(0.8, 0.1, 1, 0.5)),
    ]


def _ice_cream() -> list[Part]:
    return [
        Part(_points((-0.5, -0.1), (0.5, -0.1), (0, 1)), "dark"),
        Part(_disc(-0.3, -0.3, 0.38)),
        Part(_disc(0.3, -0.3, 0.38), "light"),
        Part(_disc(0, -0.62, 0.38)),
    ]


def _traffic_light() -> list[Part]:
    lamps = [Part(_disc(0, y, 0.2), role) for y, role in [(-0.65, "light"), (-0.12, "body"), (0.4, "light")]]
    return [
        Part(_box(-0.1, 0.65, 0.1, 1), "dark"),
        Part(_box(-0.42, -1, 0.42, 0.75)),
        Part(_box(-0.3, -0.92, 0.3, 0.67), "dark"),
        *lamps,
    ]


def _tree() -> list[Part]:
    tiers = [
        Part(_points((0, top), (half, top + 0.7), (-half, top + 0.7)))
        for top, half in [(-0.05, 0.9), (-0.5, 0.72), (-1, 0.52)]
    ]
    return [Part(_box(-0.16, 0.6, 0.16, 1), "dark"), *tiers]


def _cactus() -> list[Part]:
    return [
        Part(_disc(0, -0.75, 0.22, 0.25)),
        Part(_box(-0.22, -0.75, 0.22, 1)),
        Part(_box(-0.8, -0.4, -0.5, 0.25)),
        Part(_box(-0.8, 0.05, 0, 0.32)),
        Part(_box(0.5, -0.65, 0.8, 0.05)),
        Part(_box(0, -0.15, 0.8, 0.12)),
        Part(_box(-0.05, -0.7, 0.05, 0.9), "light"),
    ]


def _bottle() -> list[Part]:
    return [
        Part(_box(-0.18, -1, 0.18, -0.72), "dark"),
        Part(
            _points(
                (-0.15, -0.75), (0.15, -0.75), (0.15, -0.4), (0.42, -0.1),
                (0.42, 1), (-0.42, 1), (-0.42, -0.1), (-0.15, -0.4),
            )
        ),
        Part(_box(-0.42, 0.15, 0.42, 0.65), "light"),
    ]  # fmt: skip


def _pear() -> list[Part]:
    return [
        Part(_points((-0.04, -0.55), (0.1, -1), (0.22, -0.95), (0.1, -0.5)), "dark"),
        Part(_points((0.1, -0.75), (0.45, -1), (0.75, -0.75), (0.4, -0.6)), "light"),
        Part(_disc(0, -0.25, 0.4, 0.45)),
        Part(_disc(0, 0.4, 0.68, 0.58)),
    ]


def _fish() -> list[Part]:
    return [
        Part(_points((0.4, 0), (1, -0.55), (0.82, 0), (1, 0.55)), "light"),
        Part(_points((-0.2, -0.3), (0.15, -0.75), (0.3, -0.25))),
        Part(_disc(-0.2, 0, 0.8, 0.48)),
        Part(_disc(-0.62, -0.1, 0.12), "dark"),
    ]


def _sailboat() -> list[Part]:
    return [
        Part(_box(-0.06, -1, 0.06, 0.4), "dark"),
        Part(_points((0.1, -0.95), (0.8, 0.25), (0.1, 0.25)), "light"),
        Part(_points((-0.1, -0.7), (-0.1, 0.25), (-0.7, 0.25))),
        Part(_points((-1, 0.4), (1, 0.4), (0.65, 0.9), (-0.65, 0.9))),
    ]


def _mug() -> list[Part]:
    return [
        Part(_ring(0.5, 0.05, 0.48, 0.25)),
        Part(_box(-0.75, -0.75, 0.45, 0.85)),
        Part(_disc(-0.15, -0.75, 0.6, 0.16), "light"),
    ]


def _hot_air_balloon() -> list[Part]:
    ropes = [Part(_points((x, 0.2), (x + 0.1, 0.2), (x / 2 + 0.05, 0.7), (x / 2 - 0.05, 0.7)), "dark")
             for x in (-0.4, 0.3)]  # fmt: skip
    return [
        *ropes,
        Part(_box(-0.24, 0.65, 0.24, 1), "dark"),
        Part(_disc(0, -0.3, 0.75, 0.7)),
        Part(_disc(0, -0.3, 0.28, 0.7), "light"),
    ]


def _butterfly() -> list[Part]:
    wings = [Part(_disc(side * 0.52, -0.35, 0.48, 0.5)) for side in (-1, 1)]
    lower = [Part(_disc(side * 0.42, 0.45, 0.36, 0.42), "light") for side in (-1, 1)]
    return [*wings, *lower, Part(_disc(0, 0, 0.12, 0.85), "dark")]


def _flower() -> list[Part]:
    angles = np.arange(6) * np.pi / 3
    petals = [Part(_disc(0.6 * np.cos(a), 0.6 * np.sin(a), 0.36)) for a in angles]
    return [*petals, Part(_disc(0, 0, 0.34), "light")]


def _house() -> list[Part]:
    return [
        Part(_box(-0.7, -0.2, 0.7, 0.95)),
        Part(_points((-0.98, -0.15), (0, -1), (0.98, -0.15)), "dark"),
        Part(_box(-0.45, 0.25, -0.05, 0.95), "dark"),
        Part(_box(0.18, 0.1, 0.52, 0.45), "light"),
    ]


def _rocket() -> list[Part]:
    return [
        Part(_points((-0.35, 0.1), (-0.8, 0.8), (-0.3, 0.65)), "dark"),
        Part(_points((0.35, 0.1), (0.8, 0.8), (0.3, 0.65)), "dark"),
        Part(_points((-0.2, 0.65), (0.2, 0.65), (0, 1)), "light"),
        Part(
            _points(
                (0, -1), (0.24, -0.72), (0.36, -0.35), (0.36, 0.3), (0.26, 0.7),
                (-0.26, 0.7), (-0.36, 0.3), (-0.36, -0.35), (-0.24, -0.72),
            )
        ),
        Part(_disc(0, -0.25, 0.2), "light"),
    ]  # fmt: skip


@dataclass(frozen=True)
class SceneClass:
    """A drawable class: its name in captions, the hue group it leans to, and its parts."""

    name: str
    group: str
    draw: Callable[[], list[Part]]


CLASSES: tuple[SceneClass, ...] = (
    SceneClass("heart", "red", _heart),
    SceneClass("mushroom", "red", _mushroom),
    SceneClass("car", "red", _car),
    SceneClass("umbrella", "red", _umbrella),
    SceneClass("star", "yellow", _star),
    SceneClass("key", "yellow", _key),
    SceneClass("ice cream", "yellow", _ice_cream),
    SceneClass("traffic light", "yellow", _traffic_light),
    SceneClass("tree", "green", _tree),
    SceneClass("cactus", "green", _cactus),
    SceneClass("bottle", "green", _bottle),
    SceneClass("pear", "green", _pear),
    SceneClass("fish", "blue", _fish),
    SceneClass("sailboat", "blue", _sailboat),
    SceneClass("mug", "blue", _mug),
    SceneClass("hot-air balloon", "blue", _hot_air_balloon),
    SceneClass("butterfly", "purple", _butterfly),
    SceneClass("flower", "purple", _flower),
    SceneClass("house", "purple", _house),
    SceneClass("rocket", "purple", _rocket),
)
CLASS_NAMES: tuple[str, ...] = tuple(c.name for c in CLASSES)
