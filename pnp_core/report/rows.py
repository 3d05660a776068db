"""The finished pictures of a run, one by one, for whatever shows them."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

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


def rows_of_shard(plan: Plan, shard: ShardRef, keys: Container[str], side: int | None = None) -> Iterator[Row]:
    """The wanted pictures of a shard that have masks, in its order.

    Args:
        keys: their keys.
        side: the picture may be decoded smaller, but not below this many pixels a side; labels never are.
    """
    masks = {key: png for key, png in read_masks(plan.masks.folder, shard.name).items() if key in keys}
    stored = read_class_maps(plan.salience.folder, shard.name) if masks else {}
    for sample in read_shard(RunFolder(plan.masks.out), shard) if masks else ():
        if sample.key in masks:
            truth = decode_label_map(sample.label_map) if sample.label_map else None
            image = decode_image(sample.image, plan.masks.max_pixels, side).pixels
            labels = plan.masks.labels_of(decode_label_map(masks[sample.key]))
            yield Row(sample, image, stored[sample.key].by_class(), labels, truth)


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
