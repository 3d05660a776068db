"""The pictures of the report page: which ones, and each as small images that a browser lays over each other."""

from __future__ import annotations

import base64
import heapq
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from PIL import Image
from PIL.Image import Resampling

from pnp_core.data import ClassMaps, ShardRef, void_of
from pnp_core.inputs.images import image_comment, vivid
from pnp_core.report.rows import Row, rows_of_shard
from pnp_core.runs.plan import Plan
from pnp_core.stages.scores import read_image_scores
from pnp_core.text.visible import visible

SIDES = (96, 320)
"""Longer side of a thumbnail in pixels: least and most; the more pictures, the smaller."""
BYTES_PER_PIXEL = 0.5
"""Of a thumbnail with all its layers, roughly: it sets the side, the budget is kept whatever it is."""
QUALITY = 60
SHOWN_CLASSES = 6
"""Classes of a picture whose salience is shown, those with the most pixels."""
LISTED_CLASSES = 20
"""Classes of a picture that are listed, the same ones first."""
SHOWN_GRID = 24
"""Salience maps are shown with at most so many patches a side."""
ERRORS = {"wrong class": "#d55e00", "missed": "#0072b2", "too much": "#cc79a7", "not scored": "#999999"}
"""Kinds of error and their colours, which colour-blind people can tell apart (Okabe and Ito)."""


@dataclass
class ClassCount:
    """A class over all pictures of a run."""

    candidate: int = 0
    found: int = 0
    pixels: int = 0


@dataclass
class Survey:
    """What all pictures of a run say together, and which of them are shown.

    Attributes:
        images: how many have a mask.
        asked: how many had candidate classes; the mask of the others is background without a choice.
        confidence: mean over the pictures that were asked about of the mean probability of the winning label.
        classes: counts by what labels are in masks.
        nothing: pictures whose mask is background alone.
        shown: of each shard the keys that are shown, with their scores (see `read_image_scores`) or None.
    """

    images: int = 0
    asked: int = 0
    confidence: float = 0.0
    nothing: int = 0
    classes: dict[int, ClassCount] = field(default_factory=lambda: defaultdict(ClassCount))
    shown: dict[str, dict[str, dict[str, Any] | None]] = field(default_factory=dict)

    @property
    def number_shown(self) -> int:
        """Pictures that are shown."""
        return sum(len(keys) for keys in self.shown.values())


def survey(plan: Plan, shards: Sequence[ShardRef], most: int) -> Survey:
    """Go through the tables of a run once, by the shard.

    Of more pictures than can be shown the worse half is the worst ones (by mIoU, by confidence without ground
    truth), the other half every n-th of all.

    Args:
        most: pictures to show at most.
    """
    totals, worst = Survey(), _Worst(most // 2)
    step = max(1, -(-sum(shard.samples for shard in shards) // max(1, most - most // 2)))
    few = sum(shard.samples for shard in shards) <= most
    for shard in shards:
        scores = {row["key"]: row for row in read_image_scores(plan.score, shard.name)} if plan.score else {}
        columns = ["key", "classes", "mean_confidence"]
        table = plan.masks.folder.read_table(shard.name, "parquet", columns)
        for row in table.to_pylist():
            score = scores.get(row["key"])
            if few or totals.images % step == 0:
                totals.shown.setdefault(shard.name, {})[row["key"]] = score
            else:
                rank = row["mean_confidence"] if plan.score is None else score["miou"] if score else None
                worst.add(2.0 if rank is None else rank, shard.name, row["key"], score)
            _count(totals, row)
    for _, _, _, shard_name, key, score in worst.entries:
        totals.shown.setdefault(shard_name, {})[key] = score
    totals.confidence /= max(1, totals.asked)
    return totals


class _Worst:
    """The lowest values seen."""

    def __init__(self, most: int) -> None:
        self.entries: list[tuple[float, int, int, str, str, dict[str, Any] | None]] = []
        self._most, self._seen = most, 0

    def add(self, value: float, shard: str, key: str, score: dict[str, Any] | None) -> None:
        """Keep it if it is low enough; of equal ones the first."""
        self._seen += 1
        entry = (-value, -self._seen, self._seen, shard, key, score)
        if len(self.entries) < self._most:
            heapq.heappush(self.entries, entry)
        elif self.entries and entry[:2] > self.entries[0][:2]:
            heapq.heapreplace(self.entries, entry)


def _count(survey: Survey, row: dict[str, Any]) -> None:
    survey.images += 1
    if row["classes"]:
        survey.asked += 1
        survey.confidence += row["mean_confidence"]
    survey.nothing += not any(entry["pixels"] for entry in row["classes"])
    for entry in row["classes"]:
        count = survey.classes[entry["id"]]
        count.candidate += 1
        count.found += entry["pixels"] > 0
        count.pixels += entry["pixels"]


def _thumbnail_side(images: int, budget: int) -> int:
    """Longer side of a thumbnail, in pixels, so that so many fit into so many bytes.

    >>> _thumbnail_side(10, 20_000_000), _thumbnail_side(2000, 20_000_000), _thumbnail_side(100_000, 20_000_000)
    (320, 122, 96)
    """
    # Three quarters, for base64 takes a third more; square pictures are the largest.
    fits = int((0.75 * budget / max(1, images) / BYTES_PER_PIXEL) ** 0.5)
    return min(max(fits, SIDES[0]), SIDES[1])


def gallery(plan: Plan, shards: Sequence[ShardRef], survey: Survey, budget: int) -> tuple[list[dict[str, Any]], int]:
    """The pictures that are shown, as JSON-able records, and how many more there was no room for.

    Args:
        budget: bytes that they may take together in the page.
    """
    side, left, records, without = _thumbnail_side(survey.number_shown, budget), budget, [], 0
    for shard in shards:
        shown = survey.shown.get(shard.name, {})
        for row, confidence in _rows(plan, shard, shown, side) if shown else ():
            record = _image_record(plan, row, side, shown[row.sample.key], confidence)
            size = len(htmlsafe_json_dumps(record).encode())
            if size > left:
                without += 1
                continue
            left -= size
            records.append(record)
    return records, without


def _rows(plan: Plan, shard: ShardRef, shown: dict[str, Any], side: int) -> Iterator[tuple[Row, float]]:
    folder = plan.masks.folder
    table = folder.read_table(shard.name, "parquet", ["key", "mean_confidence"])
    confidence = dict(zip(table["key"].to_pylist(), table["mean_confidence"].to_pylist(), strict=True))
    for row in rows_of_shard(plan, shard, shown, side):
        yield row, confidence[row.sample.key]


def _image_record(plan: Plan, row: Row, side: int, score: dict[str, Any] | None, confidence: float) -> dict[str, Any]:
    """A picture as the page's script takes it."""
    salience = row.salience
    size = _fitted(salience.width, salience.height, side)
    return {
        "key": visible(row.sample.key),
        "source": visible(row.sample.source[:300]),
        "comment": visible(image_comment(row.sample.image)),
        "size": [salience.width, salience.height],
        "thumbnail": list(size),
        "miou": None if score is None else score["miou"],
        "iou": {} if score is None else dict(zip(map(str, score["labels"]), score["iou"], strict=True)),
        "confidence": round(confidence, 4),
        "truth_labels": [] if row.truth is None else _labels_in(row.truth),
        "chosen": visible(salience.chosen),
        "notes": [visible(note) for note in salience.notes],
        "photo": _photo(row.image, size),
        **_layers(plan, row, size),
        **_classes(row),
    }


def _labels_in(truth: np.ndarray) -> list[int]:
    return [int(label) for label in np.unique(truth) if 0 < label < void_of(truth)]


def _layers(plan: Plan, row: Row, size: tuple[int, int]) -> dict[str, str | None]:
    """What lies over the picture, as data URIs of its size; None for what there is not."""
    labels = _nearest(row.labels, size)
    layers = dict.fromkeys(("truth", "errors")) | {"prediction": _layer(labels, vivid(plan.masks.colours_of_labels))}
    if row.truth is not None:
        truth = _nearest(row.truth, size)
        void_as_background = plan.score is not None and plan.score.config.void_as_background
        layers["truth"] = _layer(truth, vivid(plan.masks.colours_of_labels))
        layers["errors"] = _error_layer(labels, truth, void_as_background)
    return layers


def _classes(row: Row) -> dict[str, Any]:
    """What was asked about: the classes with the most pixels first, and the salience of some of them."""
    salience = row.salience
    pixels = np.bincount(row.labels.ravel(), minlength=max(salience.classes, default=0) + 1)
    order = sorted(range(len(salience.classes)), key=lambda i: -pixels[salience.classes[i]])
    shown = order[:SHOWN_CLASSES]
    listed = [
        {
            "id": salience.classes[i],
            "share": round(float(pixels[salience.classes[i]] / row.labels.size), 5),
            "itm": None if salience.itm is None else round(float(salience.itm[i]), 4),
        }
        for i in order[:LISTED_CLASSES]
    ]
    sprite = _sprite(salience, shown) if shown else None
    kept = {"salience": sprite, "salience_classes": [salience.classes[i] for i in shown]}
    return {"classes": listed, "asked": len(order), **kept, "passes": len(salience.maps) if shown else 0}


def _fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height with a longer side of at most so many pixels, aspect kept."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(labels).resize(size, Resampling.NEAREST))


def _uri(image: Image.Image, **how: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, **how)
    kind = str(how["format"]).lower()
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _photo(image: np.ndarray, size: tuple[int, int]) -> str:
    small = Image.fromarray(image).resize(size, Resampling.BOX, reducing_gap=2)
    return _uri(small, format="WEBP", quality=QUALITY, method=2)


def _palette_png(indices: np.ndarray, colours: np.ndarray, opacity: Sequence[int]) -> str:
    """A palette PNG with opacity by label; only the colours in use are in the file. As RGBA where they are too many."""
    used, compact = np.unique(indices, return_inverse=True)
    compact = compact.reshape(indices.shape)
    if len(used) > _PALETTE:
        shown = np.column_stack([colours[used], np.array([opacity[i] for i in used], np.uint8)])
        return _uri(Image.fromarray(shown[compact], mode="RGBA"), format="PNG")
    image = Image.fromarray(compact.astype(np.uint8), mode="P")
    image.putpalette(colours[used].tobytes())
    bits = next(b for b in (1, 2, 4, 8) if len(used) <= 2**b)
    return _uri(image, format="PNG", bits=bits, transparency=bytes(opacity[i] for i in used))


_PALETTE = 256
"""Colours of a palette PNG at most."""


def _layer(labels: np.ndarray, palette: np.ndarray) -> str:
    """Labels in their colours; background is clear, void white."""
    colours = palette.copy()
    colours[void_of(labels)] = 255
    return _palette_png(labels, colours, [0] + [255] * (len(colours) - 1))


def _error_layer(labels: np.ndarray, truth: np.ndarray, void_as_background: bool) -> str:
    """Where mask and ground truth differ, in the colours of `ERRORS`; what is right is clear."""
    void = truth == void_of(truth)
    if void_as_background:
        truth, void = np.where(void, 0, truth), np.zeros_like(void)
    wrong = labels != truth
    kinds = [void, wrong & (labels == 0), wrong & (truth == 0), wrong]
    codes = np.select(kinds, [4, 2, 3, 1], 0).astype(np.uint8)
    colours = np.array([[0, 0, 0], *(list(bytes.fromhex(c[1:])) for c in ERRORS.values())], dtype=np.uint8)
    return _palette_png(codes, colours, [0, 255, 255, 255, 120])


def _sprite(salience: ClassMaps, shown: list[int]) -> str:
    """All maps of a picture in one grey image: a column per class, a row per pass, each class by its peak."""
    maps = salience.maps[:, shown]
    scaled = maps / np.maximum(maps.max(axis=(0, 2, 3), keepdims=True), 1e-12)
    height, width = (min(n, SHOWN_GRID) for n in maps.shape[2:])
    tiles = np.round(scaled * 255).astype(np.uint8)
    sheet = Image.new("L", (width * len(shown), height * len(tiles)))
    for k, c in np.ndindex(tiles.shape[:2]):
        tile = Image.fromarray(tiles[k, c]).resize((width, height), Resampling.BOX)
        sheet.paste(tile, (c * width, k * height))
    return _uri(sheet, format="PNG", optimize=True)
