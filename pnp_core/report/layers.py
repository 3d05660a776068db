"""What lies over a picture, as small images that a browser lays over each other."""

from __future__ import annotations

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from pnp_core.data import ClassMaps, void_of
from pnp_core.report.embedding import QUALITY, data_uri, fitted, palette_png
from pnp_core.report.palette import display_palette

SHOWN_GRID = 24
"""Salience maps are shown with at most so many patches a side."""
CONFIDENCE_SIDE = 96
"""The confidence of pixels is shown with at most so many a side."""
CONFUSED = 12
"""Confusions of a picture that are kept, the largest."""
ERRORS = {"wrong class": "#d55e00", "missed": "#0072b2", "too much": "#cc79a7", "not scored": "#f0e442"}
"""Kinds of error and their colours, which colour-blind people can tell apart (Okabe and Ito)."""
_ERROR_OPACITY = (0, 255, 255, 255, 120)


def label_layer(labels: np.ndarray) -> str:
    """Labels in their display colours; background is clear, void white."""
    return palette_png(labels, *_shown(labels))


def _shown(labels: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Colours and opacity of what labels of such a type may be."""
    colours = display_palette(labels.dtype)
    colours[void_of(labels)] = 255
    return colours, [0] + [255] * (len(colours) - 1)


def error_layer(labels: np.ndarray, truth: np.ndarray, void_as_background: bool) -> str:
    """Where mask and ground truth differ, in the colours of `ERRORS`; what is right is clear."""
    return palette_png(_error_codes(labels, truth, void_as_background), _error_colours(), _ERROR_OPACITY)


def _error_codes(labels: np.ndarray, truth: np.ndarray, void_as_background: bool) -> np.ndarray:
    void = truth == void_of(truth)
    if void_as_background:
        truth, void = np.where(void, 0, truth), np.zeros_like(void)
    wrong = labels != truth
    kinds = [void, wrong & (labels == 0), wrong & (truth == 0), wrong]
    return np.select(kinds, [4, 2, 3, 1], 0).astype(np.uint8)


def _error_colours() -> np.ndarray:
    return np.array([[0, 0, 0], *(list(bytes.fromhex(c[1:])) for c in ERRORS.values())], dtype=np.uint8)


def label_sheet(labels: np.ndarray, truth: np.ndarray | None, void_as_background: bool) -> Image.Image:
    """Prediction, and below it ground truth and errors where there is one, as one image with a palette."""
    colours, opacity = _shown(labels)
    parts = [labels] if truth is None else [labels, truth]
    used, compact = np.unique(np.concatenate(parts), return_inverse=True)
    indices = compact.reshape(len(parts) * labels.shape[0], labels.shape[1]).astype(np.uint32)
    table = np.concatenate([colours, np.array(opacity, np.uint8)[:, None]], axis=1)[used]
    if truth is not None:
        codes = _error_codes(labels, truth, void_as_background)
        indices = np.concatenate([indices, codes + np.uint32(len(table))])
        errors = np.concatenate([_error_colours(), np.array(_ERROR_OPACITY, np.uint8)[:, None]], axis=1)
        table = np.concatenate([table, errors])
    if len(table) > 256:
        return Image.fromarray(table[indices], mode="RGBA")
    image = Image.fromarray(indices.astype(np.uint8), mode="P")
    image.putpalette(table[:, :3].tobytes())
    image.info["transparency"] = table[:, 3].tobytes()
    return image


def confidence_layer(confidence: np.ndarray, side: int) -> str:
    """Each pixel's confidence (H, W) uint8 as a small grey image."""
    size = fitted(confidence.shape[1], confidence.shape[0], min(side, CONFIDENCE_SIDE))
    return data_uri(Image.fromarray(confidence).resize(size, Resampling.BOX), format="WEBP", quality=QUALITY)


def confused_pairs(labels: np.ndarray, truth: np.ndarray | None) -> list[list[int]]:
    """Ground truth, prediction and pixels of a picture's largest confusions; void counts for nothing."""
    if truth is None:
        return []
    size = 1 + void_of(truth)
    wrong = (labels != truth) & (truth != void_of(truth))
    pairs, pixels = np.unique(truth[wrong].astype(np.int64) * size + labels[wrong], return_counts=True)
    order = np.argsort(-pixels, kind="stable")[:CONFUSED]
    return np.stack([pairs // size, pairs % size, pixels], axis=1)[order].tolist()


def salience_sprite(salience: ClassMaps, shown: list[int]) -> str:
    """All maps of a picture in one grey image: a column per class, a row per pass, each class by its peak."""
    maps = salience.maps[:, shown]
    scaled = maps / np.maximum(maps.max(axis=(0, 2, 3), keepdims=True), 1e-12)
    height, width = (min(n, SHOWN_GRID) for n in maps.shape[2:])
    tiles = np.round(scaled * 255).astype(np.uint8)
    sheet = Image.new("L", (width * len(shown), height * len(tiles)))
    for k, c in np.ndindex(tiles.shape[:2]):
        tile = Image.fromarray(tiles[k, c]).resize((width, height), Resampling.BOX)
        sheet.paste(tile, (c * width, k * height))
    return data_uri(sheet, format="PNG", optimize=True)
