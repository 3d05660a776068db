"""Draw the bundled synthetic scenes: pictures with exact masks, for the demo, the tests and training.

Twenty classes are told apart by outline and parts. They come in five groups of four that lean to
a hue shared inside the group, so colour narrows the choice and only shape decides it; a share of
the objects wears an arbitrary hue. Every scene follows from ``(split, index)`` alone.

Coordinates: shapes are drawn in object units, x right and y down, within [-1, 1] x [-1, 1].
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from PIL.Image import Resampling

SCENE_SIZE = 192
SUPERSAMPLING = 2
GENERATOR_VERSION = "1"
SPLIT_SEEDS = {"train": 1, "validation": 2, "test": 3}

# How often an object wears its group's hue; otherwise any hue.
HUE_LEAN = 0.7
GROUP_HUES = {"red": 0.99, "yellow": 0.14, "green": 0.34, "blue": 0.58, "purple": 0.81}

Polygon = np.ndarray
Colour = tuple[int, int, int]


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


@dataclass(frozen=True)
class SceneObject:
    """One placed object: class id (1..20), centre and radius in image units [0, 1], look."""

    class_id: int
    x: float
    y: float
    radius: float
    angle: float = 0.0
    hue: float = 0.0
    saturation: float = 0.8
    value: float = 0.8
    texture: int = 0


@dataclass(frozen=True)
class Scene:
    """What is in a scene; `render` turns it into pixels."""

    objects: tuple[SceneObject, ...]
    background_seed: int = 0
    size: int = field(default=SCENE_SIZE)

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Ids of the classes present, ascending."""
        return tuple(sorted({o.class_id for o in self.objects}))


def group_hue(class_id: int) -> float:
    """The hue in [0, 1) that the class leans to."""
    return GROUP_HUES[CLASSES[class_id - 1].group]


def _random_hue(rng: np.random.Generator, class_id: int, lean: float) -> float:
    if rng.random() < lean:
        return (group_hue(class_id) + rng.normal(0, 0.025)) % 1.0
    return float(rng.random())


def random_look(rng: np.random.Generator, class_id: int, lean: float) -> dict[str, Any]:
    """Rotation, colour and texture of a `SceneObject`, as keyword arguments."""
    return {
        "angle": rng.uniform(-0.6, 0.6),
        "hue": _random_hue(rng, class_id, lean),
        "saturation": rng.uniform(0.55, 0.95),
        "value": rng.uniform(0.55, 0.95),
        "texture": int(rng.integers(0, 4)),
    }


def sample_scene(rng: np.random.Generator, classes: Sequence[int] | None = None, lean: float = HUE_LEAN) -> Scene:
    """Draw a random scene of 1-4 objects that overlap at most slightly.

    Args:
        rng: source of all randomness.
        classes: class ids to place, one object each; random ones when None.
        lean: probability in [0, 1] that an object wears its group's hue.
    """
    if classes is None:
        classes = [int(c) for c in rng.integers(1, len(CLASSES) + 1, rng.integers(1, 5))]
    largest = {1: 0.34, 2: 0.3, 3: 0.26}.get(len(classes), 0.24)
    placed: list[SceneObject] = []
    for class_id in classes:
        spot = _free_spot(rng, placed, largest)
        if spot is not None:
            x, y, radius = spot
            placed.append(SceneObject(class_id, x, y, radius, **random_look(rng, class_id, lean)))
    return Scene(tuple(placed), background_seed=int(rng.integers(0, 2**31)))


def _free_spot(
    rng: np.random.Generator, placed: list[SceneObject], largest: float
) -> tuple[float, float, float] | None:
    for attempt in range(60):
        radius = rng.uniform(0.16, largest) if attempt < 30 else 0.16
        x, y = rng.uniform(radius * 0.9, 1 - radius * 0.9, 2)
        if all(np.hypot(x - o.x, y - o.y) > 0.85 * (radius + o.radius) for o in placed):
            return float(x), float(y), float(radius)
    return None


def make_scene(split: str, index: int) -> Scene:
    """The scene number `index` of a split: the same one on every machine.

    Raises:
        KeyError: for a split other than train, validation, test.
    """
    return sample_scene(np.random.default_rng([SPLIT_SEEDS[split], index]))


def swap_hues(scene: Scene) -> Scene:
    """The colour-swap control: every object wears the group hue of the next object's class."""
    hues = [group_hue(o.class_id) for o in scene.objects]
    objects = [replace(o, hue=hue) for o, hue in zip(scene.objects, hues[1:] + hues[:1], strict=True)]
    return replace(scene, objects=tuple(objects))


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, float(np.clip(saturation, 0, 1)), float(np.clip(value, 0, 1)))
    return round(r * 255), round(g * 255), round(b * 255)


def _role_colour(obj: SceneObject, role: str) -> Colour:
    if role == "light":
        return _rgb(obj.hue, obj.saturation * 0.25, 0.97)
    if role == "dark":
        return _rgb(obj.hue, obj.saturation * 0.6, obj.value * 0.35)
    return _rgb(obj.hue, obj.saturation, obj.value)


def _place(outline: Polygon, obj: SceneObject, canvas: int) -> list[tuple[float, float]]:
    cos, sin = np.cos(obj.angle), np.sin(obj.angle)
    turned = outline @ np.array([[cos, sin], [-sin, cos]])
    return [tuple(p) for p in (turned * obj.radius + (obj.x, obj.y)) * canvas]


def _smooth_noise(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """Low-frequency noise (size, size) in [-1, 1], `cells` bumps across."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((size, size), Resampling.BICUBIC))


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A textured ground (size, size, 3) in 0..255: gradient, noise, and stripes or clutter."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (x * np.cos(angle) + y * np.sin(angle))[..., None]
    ends = [np.array(_rgb(rng.random(), rng.uniform(0.05, 0.5), rng.uniform(0.25, 0.95))) for _ in "ab"]
    ground = ends[0] + (ends[1] - ends[0]) * np.clip(ramp, 0, 1)
    ground = ground + 22 * _smooth_noise(rng, int(rng.integers(4, 14)), size)[..., None]
    if rng.random() < 0.3:
        waves = np.sin((x * np.cos(angle + 1) + y * np.sin(angle + 1)) * rng.uniform(20, 60))
        ground = ground + rng.uniform(6, 16) * waves[..., None]
    return ground


def _draw_clutter(rng: np.random.Generator, draw: ImageDraw.ImageDraw, canvas: int) -> None:
    """A few lines and specks of any colour that belong to no class."""
    for _ in range(rng.integers(0, 5)):
        colour = _rgb(rng.random(), rng.uniform(0.1, 0.8), rng.uniform(0.2, 0.95))
        x, y = rng.uniform(0, canvas, 2)
        if rng.random() < 0.5:
            dx, dy = rng.uniform(-0.3, 0.3, 2) * canvas
            draw.line([(x, y), (x + dx, y + dy)], fill=colour, width=int(rng.integers(2, 8)))
        else:
            r = rng.uniform(0.01, 0.035) * canvas
            draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)


def _texture(rng: np.random.Generator, kind: int, size: int) -> np.ndarray:
    """A brightness factor (size, size) around 1: flat, grainy, striped or cloudy."""
    if kind == 1:
        return 1 + rng.normal(0, 0.07, (size, size))
    if kind == 2:
        y, x = np.mgrid[0:size, 0:size] / size
        angle = rng.uniform(0, np.pi)
        return 1 + 0.12 * np.sign(np.sin((x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(60, 140)))
    if kind == 3:
        return 1 + 0.2 * _smooth_noise(rng, 12, size)
    return np.ones((size, size))


def render(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Turn a scene into pixels.

    Returns:
        The picture (size, size, 3) uint8 RGB and its label map (size, size) uint8: 0 background,
        1..20 classes; later objects hide earlier ones. A pixel's label is what covers its centre.
    """
    rng = np.random.default_rng(scene.background_seed)
    size, canvas = scene.size, scene.size * SUPERSAMPLING
    ground = np.clip(_background(rng, size), 0, 255).astype(np.uint8)
    picture = Image.fromarray(ground).resize((canvas, canvas), Resampling.BILINEAR)
    owner = Image.new("L", (canvas, canvas), 0)
    paint, mark = ImageDraw.Draw(picture), ImageDraw.Draw(owner)
    _draw_clutter(rng, paint, canvas)
    for number, obj in enumerate(scene.objects, start=1):
        for part in CLASSES[obj.class_id - 1].draw():
            outline = _place(part.outline, obj, canvas)
            paint.polygon(outline, fill=_role_colour(obj, part.role))
            mark.polygon(outline, fill=number)
    pixels = np.asarray(picture.resize((size, size), Resampling.BOX)).astype(np.float32)
    owners = np.asarray(owner)[SUPERSAMPLING // 2 :: SUPERSAMPLING, SUPERSAMPLING // 2 :: SUPERSAMPLING]
    for number, obj in enumerate(scene.objects, start=1):
        inside = owners == number
        pixels[inside] *= _texture(rng, obj.texture, size)[inside, None]
    pixels += rng.normal(0, 3, pixels.shape)
    class_of = np.array([0, *(o.class_id for o in scene.objects)], dtype=np.uint8)
    return np.clip(pixels, 0, 255).astype(np.uint8), class_of[owners]
