"""The pictures of the report page: which ones, and each as small images that a browser lays over each other."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2.utils import htmlsafe_json_dumps

from pnp_core.data import ShardRef, void_of
from pnp_core.inputs.images import image_comment
from pnp_core.report.embedding import fitted, nearest, photo
from pnp_core.report.layers import confidence_layer, confused_pairs, error_layer, label_layer, salience_sprite
from pnp_core.report.pictures import Pictures, void_as_background
from pnp_core.report.rows import Row, rows_of_shard
from pnp_core.runs.plan import Plan
from pnp_core.stages.masks import STAGE as MASKS
from pnp_core.stages.scores import read_image_scores
from pnp_core.text.visible import visible

SIDES = (96, 320)
"""Longer side of a thumbnail in pixels: least and most; the more pictures, the smaller."""
BYTES_PER_PIXEL = 0.5
"""Of a thumbnail with all its layers, roughly: it sets the side, the budget is kept whatever it is."""
SHOWN_CLASSES = 6
"""Classes of a picture whose salience is shown, those with the most pixels."""
LISTED_CLASSES = 20
"""Classes of a picture that are listed, the same ones first."""


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


def gallery(
    plan: Plan, shards: Sequence[ShardRef], survey: Survey, budget: int, pictures: Pictures | None = None
) -> tuple[list[dict[str, Any]], int]:
    """The pictures that are shown, as JSON-able records, and how many more there was no room for.

    Args:
        budget: bytes that they may take together in the page.
        pictures: where they are left beside the page too, with all their pixels.
    """
    side, left, records, without = _thumbnail_side(survey.number_shown, budget), budget, [], 0
    for shard in shards:
        shown = survey.shown.get(shard.name, {})
        # Where pictures are written beside the page, they are decoded whole.
        whole = pictures is not None and bool(shown) and pictures.begin(plan, shard, shown)
        for row, confidence in _rows(plan, shard, shown, None if whole else side) if shown else ():
            record = _image_record(plan, row, side, shown[row.sample.key], confidence)
            record["mask"] = f"{MASKS}/{plan.masks.fingerprint}/{shard.name}.parquet"
            record["beside"] = pictures.leave(plan, shard, row) if pictures else None
            size = len(htmlsafe_json_dumps(record).encode())
            if size > left:
                without += 1
                continue
            left -= size
            records.append(record)
    return records, without


def _rows(plan: Plan, shard: ShardRef, shown: dict[str, Any], side: int | None) -> Iterator[tuple[Row, float]]:
    folder = plan.masks.folder
    table = folder.read_table(shard.name, "parquet", ["key", "mean_confidence"])
    confidence = dict(zip(table["key"].to_pylist(), table["mean_confidence"].to_pylist(), strict=True))
    for row in rows_of_shard(plan, shard, shown, side):
        yield row, confidence[row.sample.key]


def _image_record(plan: Plan, row: Row, side: int, score: dict[str, Any] | None, confidence: float) -> dict[str, Any]:
    """A picture as the page's script takes it."""
    salience = row.salience
    size = fitted(salience.width, salience.height, side)
    return {
        "key": visible(row.sample.key),
        "source": visible(row.sample.source[:300]),
        "comment": visible(image_comment(row.sample.image)),
        "size": [salience.width, salience.height],
        "thumbnail": list(size),
        "miou": None if score is None else score["miou"],
        "iou": {} if score is None else dict(zip(map(str, score["labels"]), score["iou"], strict=True)),
        # Of what nothing was asked there was no choice to be sure of.
        "confidence": round(confidence, 4) if salience.classes else None,
        "truth_labels": [] if row.truth is None else _labels_in(row.truth),
        "chosen": visible(salience.chosen),
        "notes": [visible(note) for note in salience.notes],
        "confused": confused_pairs(row.labels, row.truth),
        "photo": photo(row.image, size),
        "certainty": None if row.confidence is None else confidence_layer(row.confidence, side),
        **_layers(plan, row, size),
        **_classes(row),
    }


def _labels_in(truth: np.ndarray) -> list[int]:
    return [int(label) for label in np.unique(truth) if 0 < label < void_of(truth)]


def _layers(plan: Plan, row: Row, size: tuple[int, int]) -> dict[str, str | None]:
    """What lies over the picture, as data URIs of its size; None for what there is not."""
    labels = nearest(row.labels, size)
    layers = dict.fromkeys(("truth", "errors")) | {"prediction": label_layer(labels)}
    if row.truth is not None:
        truth = nearest(row.truth, size)
        layers["truth"] = label_layer(truth)
        layers["errors"] = error_layer(labels, truth, void_as_background(plan))
    return layers


def _classes(row: Row) -> dict[str, Any]:
    """What was asked about: the classes with the most pixels first, and the salience of some of them."""
    salience = row.salience
    pixels = np.bincount(row.labels.ravel(), minlength=1 + max(salience.classes, default=0))
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
    sprite = salience_sprite(salience, shown) if shown else None
    kept = {"salience": sprite, "salience_classes": [salience.classes[i] for i in shown]}
    return {"classes": listed, "asked": len(order), **kept, "passes": len(salience.maps) if shown else 0}
