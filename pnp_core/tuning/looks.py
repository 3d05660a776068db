"""What the chosen setting looks like: masks of a few pictures beside those of the configuration it was searched from.

Both are made of the maps that the search saw, and refined as configured. The model is asked again only where nothing
is kept of a setting that the search did not try, and for these pictures alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pnp_core.data import Sample, ShardRef
from pnp_core.inputs.images import decode_image, decode_label_map, encode_label_map
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.label_map import make_label_maps
from pnp_core.masks.refine import open_refiner
from pnp_core.storage.run_folder import fingerprint, table_bytes
from pnp_core.storage.shards import read_shard
from pnp_core.tuning.cache import read_images
from pnp_core.tuning.compare import with_masks
from pnp_core.tuning.plan import TunePlan, resolved_masks
from pnp_core.tuning.space import AnySetting
from pnp_core.tuning.subject import CachedMaps

IMAGES = 8
"""The first so many of the tuning pictures, which were drawn at random."""
VERSION = 1


@dataclass(frozen=True)
class Look:
    """A picture under two settings.

    Attributes:
        pixels: (H, W, 3) uint8.
        chosen, before: (H, W) labels under the chosen setting and under the configured one: uint8, or uint16 with more
            than 254 classes.
        truth: (H, W) as those; None where there is none.
    """

    key: str
    pixels: np.ndarray = field(repr=False)
    chosen: np.ndarray = field(repr=False)
    before: np.ndarray | None = field(repr=False)
    truth: np.ndarray | None = field(repr=False)


def look_at_choice(plan: TunePlan, shards: Sequence[ShardRef], chosen: AnySetting, truth: bool) -> list[Look]:
    """The masks of a few pictures, or what an earlier run of the same made of them.

    Args:
        truth: also open their ground truth, where there is some. Nothing that is chosen depends on it.
    """
    wanted = _first_images(plan, shards)
    masks, before = _made(plan, shards, wanted, chosen), plan.maps.configured(plan.config, chosen)
    truths = _truths(plan, [key for images in wanted.values() for key in images]) if truth else {}
    found = []
    for shard, images in wanted.items():
        for sample in _samples(plan, shard, images):
            own = masks[sample.key]
            pixels = decode_image(sample.image, plan.config.salience.max_pixels).pixels
            former = None if before is None else decode_label_map(own["before"])
            found.append(Look(sample.key, pixels, decode_label_map(own["chosen"]), former, truths.get(sample.key)))
    return found


def _first_images(plan: TunePlan, shards: Sequence[ShardRef]) -> dict[ShardRef, dict[str, CachedMaps]]:
    found, left = {}, IMAGES
    for shard in shards:
        if images := read_images(plan.maps, shard.name)[:left]:
            found[shard] = {image.key: image for image in images}
            left -= len(images)
    return found


def _samples(plan: TunePlan, shard: ShardRef, images: dict[str, CachedMaps]) -> list[Sample]:
    return [sample for sample in read_shard(plan.run, shard) if sample.key in images]


def _made(
    plan: TunePlan, shards: Sequence[ShardRef], wanted: dict[ShardRef, dict[str, CachedMaps]], chosen: AnySetting
) -> dict[str, dict[str, Any]]:
    """Masks as PNG by key, `chosen` and `before` (equal where there is no other setting); kept in the run folder."""
    before = plan.maps.configured(plan.config, chosen) or chosen
    masks = resolved_masks(plan.config, plan.card)
    asked: list[Any] = [VERSION, chosen.columns, before.columns, masks.facts(), plan.config.method.mask_facts()]
    asked += [*plan.maps.compare_facts, [list(images) for images in wanted.values()]]
    file = f"{plan.search_folder(list(shards))}/looks-{fingerprint(*asked)}.parquet"
    table = plan.run.find_table(file)
    if table is None:
        rows = [row for shard, images in wanted.items() for row in _rows(plan, shard, images, chosen, before, masks)]
        schema = pa.schema([("key", pa.string()), ("chosen", pa.binary()), ("before", pa.binary())])
        table = pa.Table.from_pylist(rows, schema=schema)
        plan.run.write(file, table_bytes(table))
    return {row["key"]: row for row in table.to_pylist()}


def _rows(
    plan: TunePlan,
    shard: ShardRef,
    images: dict[str, CachedMaps],
    chosen: AnySetting,
    before: AnySetting,
    masks: MaskConfig,
) -> list[dict[str, Any]]:
    samples = _samples(plan, shard, images)
    refine = open_refiner(masks.crf, plan.config.runtime.device)
    columns = []
    for setting in (chosen, before):
        maps = plan.maps.decisions(setting, shard, samples, masks, plan.config.runtime)
        made = []
        for sample in samples:
            pixels = decode_image(sample.image, plan.config.salience.max_pixels).pixels
            own, decide = maps[sample.key]
            (label_map,) = make_label_maps([own], [pixels], decide, refine, masks.max_side)
            made.append(encode_label_map(label_map.labels))
        columns.append(made)
    keys = [sample.key for sample in samples]
    return [{"key": key, "chosen": one, "before": other} for key, one, other in zip(keys, *columns, strict=True)]


def _truths(plan: TunePlan, keys: list[str]) -> dict[str, np.ndarray]:
    dataset = with_masks(plan, keys)
    samples = dataset.restricted(keys).samples() if dataset else ()
    return {sample.key: decode_label_map(sample.label_map) for sample in samples if sample.label_map is not None}
