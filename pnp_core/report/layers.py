"""What lies over a picture, as small images that a browser lays over each other."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from pnp_core.data import IGNORE, ClassMaps
from pnp_core.report.palette import display_palette

QUALITY = 60
SHOWN_GRID = 24
"""Salience maps are shown with at most so many patches a side."""
CONFIDENCE_SIDE = 96
"""The confidence of pixels is shown with at most so many a side."""
CONFUSED = 12
"""Confusions of a picture that are kept, the largest."""
ERRORS = {"wrong class": "#d55e00", "missed": "#0072b2", "too much": "#cc79a7", "not scored": "#f0e442"}
"""Kinds of error and their colours, which colour-blind people can tell apart (Okabe and Ito)."""
_ERROR_OPACITY = (0, 255, 255, 255, 120)


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height with a longer side of at most so many pixels, aspect kept."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (H, W) at a width and height, none of them mixed."""
    return np.asarray(Image.fromarray(labels).resize(size, Resampling.NEAREST))


def data_uri(image: Image.Image, **how: Any) -> str:
    """An image as the address that holds it.

    Args:
        how: what Pillow's `save` takes; `format` at least.
    """
    buffer = io.BytesIO()
    image.save(buffer, **how)
    kind = str(how["format"]).lower()
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def photo_uri(image: np.ndarray, size: tuple[int, int]) -> str:
    """A picture (H, W, 3) at a width and height."""
    small = Image.fromarray(image).resize(size, Resampling.BOX, reducing_gap=2)
    return data_uri(small, format="WEBP", quality=QUALITY, method=2)


def palette_png(indices: np.ndarray, colours: np.ndarray, opacity: Sequence[int]) -> str:
    """A palette PNG with opacity by label; only the colours in use are in the file."""
    used, compact = np.unique(indices, return_inverse=True)
    image = Image.fromarray(compact.reshape(indices.shape).astype(np.uint8), mode="P")
    image.putpalette(colours[used].tobytes())
    bits = next(b for b in (1, 2, 4, 8) if len(used) <= 2**b)
    return data_uri(image, format="PNG", bits=bits, transparency=bytes(opacity[i] for i in used))


_OPAQUE_LABELS = [0] + [255] * 255


def label_layer(labels: np.ndarray, palette: np.ndarray) -> str:
    """Labels in their colours; background is clear, void white."""
    colours = palette.copy()
    colours[IGNORE] = 255
    return palette_png(labels, colours, _OPAQUE_LABELS)


def error_layer(labels: np.ndarray, truth: np.ndarray, void_as_background: bool) -> str:
    """Where mask and ground truth differ, in the colours of `ERRORS`; what is right is clear."""
    return palette_png(_error_codes(labels, truth, void_as_background), _error_colours(), _ERROR_OPACITY)


def _error_codes(labels: np.ndarray, truth: np.ndarray, void_as_background: bool) -> np.ndarray:
    if void_as_background:
        truth = np.where(truth == IGNORE, 0, truth)
    wrong = labels != truth
    kinds = [truth == IGNORE, wrong & (labels == 0), wrong & (truth == 0), wrong]
    return np.select(kinds, [4, 2, 3, 1], 0).astype(np.uint8)


def _error_colours() -> np.ndarray:
    return np.array([[0, 0, 0], *(list(bytes.fromhex(c[1:])) for c in ERRORS.values())], dtype=np.uint8)


def label_sheet(labels: np.ndarray, truth: np.ndarray | None, void_as_background: bool) -> Image.Image:
    """Prediction, and below it ground truth and errors where there is one, as one image with a palette."""
    colours = display_palette()
    colours[IGNORE] = 255
    opacity = np.array(_OPAQUE_LABELS, dtype=np.uint8)
    parts = [labels] if truth is None else [labels, truth]
    used, compact = np.unique(np.concatenate(parts), return_inverse=True)
    indices = compact.reshape(len(parts) * labels.shape[0], labels.shape[1]).astype(np.uint16)
    table = np.concatenate([colours, opacity[:, None]], axis=1)[used]
    if truth is not None:
        codes = _error_codes(labels, truth, void_as_background)
        indices = np.concatenate([indices, codes + np.uint16(len(table))])
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
    pairs = np.bincount((truth.astype(np.int64) * 256 + labels).ravel(), minlength=1 << 16).reshape(256, 256)
    pairs[IGNORE] = 0
    np.fill_diagonal(pairs, 0)
    rows, columns = np.nonzero(pairs)
    order = np.argsort(-pairs[rows, columns], kind="stable")[:CONFUSED]
    return np.stack([rows, columns, pairs[rows, columns]], axis=1)[order].tolist()


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
