"""Draw the bundled synthetic scenes: pictures with exact masks, for the demo, the tests and training.

Twenty classes are told apart by outline and parts. They come in five groups of four that lean to
a hue shared inside the group, so colour narrows the choice and only shape decides it; a share of
the objects wears an arbitrary hue. Every scene follows from ``(split, index)`` alone.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from PIL.Image import Resampling

from pnp_core.inputs.scenes.shapes import CLASSES, GROUP_HUES, Polygon

SCENE_SIZE = 192
SUPERSAMPLING = 2
SPLIT_SEEDS = {"train": 1, "validation": 2, "test": 3}

# How often an object wears its group's hue; otherwise any hue.
HUE_LEAN = 0.7

Colour = tuple[int, int, int]


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
    image = Image.fromarray(ground).resize((canvas, canvas), Resampling.BILINEAR)
    owner = Image.new("L", (canvas, canvas), 0)
    paint, mark = ImageDraw.Draw(image), ImageDraw.Draw(owner)
    _draw_clutter(rng, paint, canvas)
    for number, obj in enumerate(scene.objects, start=1):
        for part in CLASSES[obj.class_id - 1].draw():
            outline = _place(part.outline, obj, canvas)
            paint.polygon(outline, fill=_role_colour(obj, part.role))
            mark.polygon(outline, fill=number)
    pixels = np.asarray(image.resize((size, size), Resampling.BOX)).astype(np.float32)
    owners = np.asarray(owner)[SUPERSAMPLING // 2 :: SUPERSAMPLING, SUPERSAMPLING // 2 :: SUPERSAMPLING]
    for number, obj in enumerate(scene.objects, start=1):
        inside = owners == number
        pixels[inside] *= _texture(rng, obj.texture, size)[inside, None]
    pixels += rng.normal(0, 3, pixels.shape)
    class_of = np.array([0, *(o.class_id for o in scene.objects)], dtype=np.uint8)
    return np.clip(pixels, 0, 255).astype(np.uint8), class_of[owners]
