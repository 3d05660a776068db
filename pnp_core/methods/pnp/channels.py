"""Stored salience to scores: sum over drop iterations, threshold, resize, background, blur (paper section 3.4)."""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from pnp_core.data import ClassMaps
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.grids import blur_matrix, min_max, resize_matrix
from pnp_core.masks.label_map import LabelMap, Scores, make_label_maps, wants_background
from pnp_core.masks.refine import open_refiner
from pnp_core.methods.pnp.config import PnpConfig


def sum_iterations(
    maps: Float[np.ndarray, "K C gh gw"], how: Literal["plain", "first_twice"]
) -> Float[np.ndarray, "C gh gw"]:
    """Sum over drop iterations; the authors' code adds the first map twice."""
    total = maps.sum(axis=0)
    return total + maps[0] if how == "first_twice" else total


def threshold(
    maps: Float[np.ndarray, "C gh gw"], at: float, ties: Literal["cut", "keep"] = "cut"
) -> Float[np.ndarray, "C gh gw"]:
    """Keep the raw salience where its min-max is above `at` (with ties kept also where it is `at`), 0 elsewhere."""
    scaled = min_max(maps)
    return np.where(scaled >= at if ties == "keep" else scaled > at, maps, 0)


def channels(
    maps: Float[np.ndarray, "C gh gw"], height: int, width: int, background: bool, sigma: float
) -> Float[np.ndarray, "C2 H W"]:
    """Thresholded maps to blurred image-size channels in [0, 1], background first when wanted.

    The background channel is 1 where every class is 0 after resizing. All channels are blurred,
    then scaled to [0, 1] each.

    Args:
        sigma: of the Gaussian, image pixels; 0 leaves it out.
    """
    rows, columns = resize_matrix(height, maps.shape[1]), resize_matrix(width, maps.shape[2])
    blur_rows, blur_columns = (blur_matrix(height, sigma), blur_matrix(width, sigma)) if sigma > 0 else (None, None)
    smooth_rows = rows if blur_rows is None else blur_rows @ rows
    smooth_columns = columns if blur_columns is None else blur_columns @ columns
    # Resize and blur of a class map in one product each side: (G_h B_h) X (G_w B_w)^T.
    stacked = smooth_rows @ maps.astype(np.float32) @ smooth_columns.T
    if background:
        # Maps are >= 0, so their sum is 0 exactly where all of them are.
        empty = (rows @ maps.sum(axis=0).astype(np.float32) @ columns.T == 0).astype(np.float32)
        if blur_rows is not None and blur_columns is not None:
            empty = blur_rows @ empty @ blur_columns.T
        stacked = np.concatenate([empty[None], stacked])
    return min_max(stacked)


def decide(config: PnpConfig, masks: MaskConfig, maps: ClassMaps, size: tuple[int, int]) -> Scores:
    """Scores of one image's salience at a size (H, W) in pixels."""
    summed = sum_iterations(maps.maps[: config.passes], config.sum)
    background = wants_background(masks.background, len(maps.classes))
    sigma = masks.blur * max(size)
    return Scores(
        channels=channels(threshold(summed, masks.threshold, masks.ties), *size, background, sigma),
        # A table from channel to class id: renumbering in place collides on unsorted ids.
        labels=(*(0,) * background, *maps.classes),
        strength=summed.mean(axis=(1, 2)).astype(np.float32),
    )


def make_label_map(
    maps: ClassMaps, image: UInt8[np.ndarray, "H W 3"], masks: MaskConfig, config: PnpConfig, device: str = "auto"
) -> LabelMap:
    """One image's salience to its label map: `decide`, refinement, argmax."""
    refine = open_refiner(masks.crf, device)
    (made,) = make_label_maps([maps], [image], partial(decide, config, masks), refine, masks.max_side)
    return made
