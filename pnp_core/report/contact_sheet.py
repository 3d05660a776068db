"""A PNG on which a person judges a run at a glance."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.Image import Resampling

from pnp_core.data import ShardRef, void_of
from pnp_core.report.palette import display_palette
from pnp_core.report.rows import Row, first_rows
from pnp_core.runs.plan import Plan
from pnp_core.storage.files import MARK
from pnp_core.storage.run_folder import RunFolder, fingerprint
from pnp_core.storage.seals import sealed, sha256, unsealed
from pnp_core.text.visible import visible

CONTACT_SHEET = "contact_sheet.png"
VERSION = 2
"""Of the drawing: another one makes all sheets anew."""
_NOTE = f"{MARK}/contact_sheet.json"
"""What the sheet that is there was drawn from."""
TILE = 152
GAP = 6
HEADER = 28
LEGEND = 22
_INK, _PAPER = (30, 30, 30), (255, 255, 255)


def write_contact_sheet(plan: Plan, shards: Sequence[ShardRef]) -> None:
    """Draw the contact sheet of a run and leave it there, unless the one that is there shows the same masks."""
    run, of = RunFolder(plan.masks.out), _identity(plan, shards)
    there, note = run.find(CONTACT_SHEET), unsealed(run.find(_NOTE) or b"")
    if there is not None and note == {"of": of, "sha256": sha256(there)}:
        return
    drawn = contact_sheet(plan, shards)
    run.write(CONTACT_SHEET, drawn)
    run.write(_NOTE, sealed({"of": of, "sha256": sha256(drawn)}))


def _identity(plan: Plan, shards: Sequence[ShardRef]) -> str:
    """Names all that a sheet shows: records of masks say what these were made from."""
    records = [(shard.name, shard.sha256, plan.masks.folder.record_sha256(shard.name)) for shard in shards]
    return fingerprint(CONTACT_SHEET, VERSION, plan.masks.fingerprint, records)


def tile(pixels: np.ndarray) -> Image.Image:
    """A picture centred on a square tile, aspect kept."""
    image = Image.fromarray(pixels)
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    smooth = image.resize(size, Resampling.BICUBIC if scale < 1 else Resampling.NEAREST)
    tile = Image.new("RGB", (TILE, TILE), (235, 235, 235))
    tile.paste(smooth, ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return tile


def overlay(image: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Class colours over a pale grey picture; void pixels white."""
    grey = image.mean(axis=2, keepdims=True) * 0.35 + 140
    colours = palette[labels].astype(np.float32)
    shown = np.where((labels > 0)[..., None], 0.75 * colours + 0.25 * grey, grey)
    shown[labels == void_of(labels)] = 255
    return np.clip(shown, 0, 255).astype(np.uint8)


def _heat(row: Row, iteration: int, palette: np.ndarray) -> np.ndarray:
    """Salience over a dark picture: each pixel in the colour of its strongest class, each class scaled by its
    peak over all iterations.
    """
    height, width = row.image.shape[:2]
    dark = row.image.mean(axis=2, keepdims=True) * 0.3 * np.ones(3)
    strongest, light = np.zeros((height, width, 1)), np.zeros((height, width, 3))
    peaks = np.maximum(row.salience.maps.max(axis=(0, 2, 3)), 1e-12)
    for c, class_id in enumerate(row.salience.classes):
        scaled = Image.fromarray((row.salience.maps[iteration, c] / peaks[c]).astype(np.float32))
        strength = np.asarray(scaled.resize((width, height), Resampling.BILINEAR))[..., None]
        light = np.where(strength > strongest, strength * (palette[class_id].astype(np.float32) * 0.8 + 50), light)
        strongest = np.maximum(strongest, strength)
    return np.clip(dark + light, 0, 255).astype(np.uint8)


def _draw_legend(
    draw: ImageDraw.ImageDraw, row: Row, names: Sequence[str], palette: np.ndarray, y: int, width: int
) -> None:
    x = GAP
    font = ImageFont.load_default(12)
    key = visible(row.sample.key)[:40]
    draw.text((x, y + 3), key, fill=_INK, font=font)
    x += draw.textlength(key, font=font) + 14
    if not row.salience.classes:
        draw.text((x, y + 3), visible(row.salience.chosen), fill=_INK, font=font)
    draw_classes(draw, (x, y), row.salience.classes, names, palette, width)


def draw_classes(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, int],
    classes: Sequence[int],
    names: Sequence[str],
    palette: np.ndarray,
    width: int,
) -> None:
    """A line of names with their colours, and how many more there are where they do not fit.

    Args:
        at: x and y of its upper left corner.
        names: of the labels 1, 2 ...
        width: x that no name goes beyond.
    """
    (x, y), font = at, ImageFont.load_default(12)
    for number, class_id in enumerate(classes):
        name = visible(names[class_id - 1])
        if x + 34 + draw.textlength(name, font=font) > width:
            draw.text((x, y + 3), f"+ {len(classes) - number} more", fill=_INK, font=font)
            return
        draw.rectangle([x, y + 5, x + 10, y + 15], fill=tuple(palette[class_id].tolist()), outline=_INK)
        draw.text((x + 14, y + 3), name, fill=_INK, font=font)
        x += 14 + draw.textlength(name, font=font) + 14


def contact_sheet(plan: Plan, shards: Sequence[ShardRef], images: int = 10) -> bytes:
    """PNG bytes: one line per picture with picture, ground truth (if any), prediction, and the
    salience of every pass in the classes' colours.

    Args:
        images: how many, spread over the shards.
    """
    rows = list(first_rows(plan, shards, images))
    palette = display_palette(plan.masks.label_type)
    truths = any(row.truth is not None for row in rows)
    iterations = max((len(row.salience.maps) for row in rows), default=0)
    titles = ["picture", *(["ground truth"] if truths else []), "prediction"]
    titles += [f"salience, pass {k + 1}" for k in range(iterations)]
    width = GAP + len(titles) * (TILE + GAP)
    sheet = Image.new("RGB", (width, HEADER + len(rows) * (TILE + LEGEND)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((GAP + column * (TILE + GAP), 8), title, fill=_INK, font=ImageFont.load_default(13))
    for number, row in enumerate(rows):
        y = HEADER + number * (TILE + LEGEND)
        tiles = [row.image]
        if truths:
            tiles.append(overlay(row.image, row.truth, palette) if row.truth is not None else row.image)
        tiles.append(overlay(row.image, row.labels, palette))
        tiles += [_heat(row, k, palette) for k in range(iterations)]
        for column, pixels in enumerate(tiles):
            sheet.paste(tile(pixels), (GAP + column * (TILE + GAP), y))
        _draw_legend(draw, row, plan.masks.class_names, palette, y + TILE, width - 40)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", compress_level=3)  # a third of the time, a sixth larger
    return buffer.getvalue()
