"""Cosines of patches with texts to scores of every pixel: what methods share that hold patches against texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np
from jaxtyping import Float

from pnp_core.data import ClassMaps
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.grids import blur_matrix, half_pixel_matrix
from pnp_core.masks.label_map import Scores, wants_background


def windows_to_pixels(
    maps: Float[np.ndarray, "Q gh gw"],
    boxes: Sequence[tuple[int, int, int, int]],
    seen: tuple[int, int],
    size: tuple[int, int],
) -> Float[np.ndarray, "Q H W"]:
    """Maps of windows at a size in pixels: each window's bilinear to model pixels, the mean where they overlap, and
    these bilinear to the size. All of it is linear and separable, hence a product with a small matrix each side.

    Args:
        maps: the windows' grids laid beside and below each other as the windows lie.
        boxes: of the windows in model pixels, row by row, all of one size: top, left, bottom, right.
        seen: h, w of the picture in model pixels.
        size: H, W.
    """
    tops, lefts = (tuple(sorted({box[axis] for box in boxes})) for axis in (0, 1))
    down = _to_length(size[0], seen[0], tops, boxes[0][2] - boxes[0][0], maps.shape[1])
    along = _to_length(size[1], seen[1], lefts, boxes[0][3] - boxes[0][1], maps.shape[2])
    return down @ maps @ along.T


@lru_cache(maxsize=64)
def _to_length(size: int, seen: int, starts: tuple[int, ...], side: int, cells: int) -> np.ndarray:
    """Along one axis (size, cells): cells of all windows to pixels."""
    each = cells // len(starts)
    joined = np.zeros((seen, cells), dtype=np.float32)
    for number, start in enumerate(starts):
        joined[start : start + side, number * each : (number + 1) * each] = half_pixel_matrix(side, each)
    times = np.zeros((seen, 1), dtype=np.float32)
    for start in starts:
        times[start : start + side] += 1
    return half_pixel_matrix(size, seen) @ (joined / times)


ToPixels = Callable[..., Float[np.ndarray, "Q H W"]]
"""`to_pixels(maps, size=(H, W))`: stored maps at a size in pixels."""


def query_scores(
    maps: ClassMaps, masks: MaskConfig, size: tuple[int, int], to_pixels: ToPixels, scale: float, seen: tuple[int, int]
) -> Scores:
    """Cosines at the size of the picture, and what is made of them once they are smoothed (see `probabilities`).

    Without a background that is wanted no query of it takes part, and no threshold.

    Args:
        maps: (1, Q, gh, gw) cosines of each query on the patches.
        masks: its threshold is the probability below which a pixel is background.
        to_pixels: what brings the maps to the size.
        scale: of the cosines before the softmax over queries.
        seen: h, w in model pixels.
    """
    background = wants_background(masks.background, len(maps.classes))
    of = np.array(maps.of)
    kept = np.flatnonzero(of >= (0 if background else 1))
    cosines = to_pixels(maps.maps[0][kept], size=size)
    if masks.blur > 0:
        down, along = (blur_matrix(side, masks.blur * max(size)) for side in size)
        cosines = down @ cosines @ along.T
    groups = [np.flatnonzero(of[kept] == label) for label in (0, *maps.classes)]
    claims, least = len(groups[0]) > 0, masks.threshold if background else 0.0
    return Scores(
        channels=cosines,
        labels=((0,) if claims else ()) + maps.classes + ((0,) if least > 0 else ()),
        strength=_strength(maps, of),
        finish=partial(probabilities, groups=groups if claims else groups[1:], scale=scale, least=least),
        seen_at=seen,
    )


def _strength(maps: ClassMaps, of: np.ndarray) -> Float[np.ndarray, " C"]:
    """Mean over patches of each class's best cosine."""
    return np.array([maps.maps[0][of == label].max(axis=0).mean() for label in maps.classes], dtype=np.float32)


def probabilities(
    cosines: Float[np.ndarray, "Q H W"], groups: Sequence[np.ndarray], scale: float, least: float
) -> Float[np.ndarray, "N H W"]:
    """Logarithms of class probabilities: the softmax over queries, and of a class its most probable query.

    Args:
        groups: of each class the places of its queries.
        scale: of the cosines before the softmax.
        least: probability below which a pixel is background, a last channel of that height; none when 0.
    """
    best = np.stack([cosines[group].max(axis=0) for group in groups])
    peak = best.max(axis=0)
    total = np.zeros_like(peak)
    for one in cosines:  # one by one: a copy of them all would be as large again
        total += np.exp(scale * (one - peak))
    best = scale * (best - peak) - np.log(total)
    return best if least == 0 else np.concatenate([best, np.full_like(peak, np.log(least))[None]])
