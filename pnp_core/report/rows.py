"""The finished pictures of a run, one by one, for whatever shows them."""

from __future__ import annotations

import io
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image

from pnp_core.data import ClassMaps, Sample, ShardRef
from pnp_core.inputs.images import decode_image, decode_label_map
from pnp_core.runs.plan import Plan
from pnp_core.stages.masks import read_masks
from pnp_core.storage.class_maps import read_class_maps
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import read_shard


@dataclass(frozen=True)
class Row:
    """A picture, its salience, its mask, and ground truth where there is some; all of labels, whatever their ids."""

    sample: Sample
    image: np.ndarray
    salience: ClassMaps
    labels: np.ndarray
    truth: np.ndarray | None
    confidence: np.ndarray | None = None
    """Of each pixel, (H, W) uint8, where the run keeps it."""


def rows_of_shard(plan: Plan, shard: ShardRef, keys: Container[str], side: int | None = None) -> Iterator[Row]:
    """The wanted pictures of a shard that have masks, in its order.

    Args:
        keys: their keys.
        side: the picture may be decoded smaller, but not below this many pixels a side; labels never are.
    """
    masks = {key: png for key, png in read_masks(plan.masks.folder, shard.name).items() if key in keys}
    kept = _confidence(plan, shard, keys) if masks else {}
    stored = read_class_maps(plan.salience.folder, shard.name) if masks else {}
    for sample in read_shard(RunFolder(plan.masks.out), shard) if masks else ():
        if sample.key in masks:
            truth = decode_label_map(sample.label_map) if sample.label_map else None
            image = decode_image(sample.image, plan.masks.max_pixels, side).pixels
            labels = plan.masks.labels_of(decode_label_map(masks[sample.key]))
            confidence = kept.get(sample.key)
            seen = None if confidence is None else np.asarray(Image.open(io.BytesIO(confidence)))
            yield Row(sample, image, stored[sample.key].by_class(), labels, truth, seen)


def _confidence(plan: Plan, shard: ShardRef, keys: Container[str]) -> dict[str, bytes]:
    """PNGs of the confidence of the wanted pictures' pixels, where the run keeps them."""
    if not plan.masks.config.confidence:
        return {}
    table = plan.masks.folder.read_table(shard.name, "parquet", ["key", "confidence"])
    images = zip(table["key"].to_pylist(), table["confidence"].combine_chunks().to_pylist(), strict=True)
    return {key: image["bytes"] for key, image in images if key in keys and image}


def first_rows(plan: Plan, shards: Sequence[ShardRef], number: int) -> Iterator[Row]:
    """The first labelled pictures of each shard, in turn, as many as asked for."""
    per_shard = -(-number // len(shards))
    left = number
    for shard in shards:
        keys = set(islice(read_masks(plan.masks.folder, shard.name), min(per_shard, left)))
        yield from rows_of_shard(plan, shard, keys)
        left -= len(keys)
        if left <= 0:
            return
