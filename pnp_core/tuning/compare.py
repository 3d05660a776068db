"""What the reward is worth, where there are masks: mIoU of every setting that was tried.

Called when the choice is made. Nothing here reaches the search.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pnp_core.data import Progress, Sample, ShardRef, silent
from pnp_core.errors import DatasetError
from pnp_core.inputs.images import decode_image, decode_label_map
from pnp_core.inputs.readers import Dataset
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.label_map import make_label_maps
from pnp_core.masks.refine import Refiner, open_refiner
from pnp_core.metrics import ConfusionMatrix
from pnp_core.runs.plan import class_subset, scored_labels
from pnp_core.storage.run_folder import fingerprint, table_bytes
from pnp_core.tuning.cache import read_images
from pnp_core.tuning.plan import TunePlan, resolved_masks, tuning_dataset
from pnp_core.tuning.search import Trial, best_trial
from pnp_core.tuning.space import AnySetting
from pnp_core.tuning.subject import CachedMaps, Opened

VERSION = 1


@dataclass(frozen=True)
class Comparison:
    """Reward and mIoU of every setting that was tried.

    Attributes:
        what: `plain` or `full`, see `CompareConfig`.
        images: pictures that were scored.
        miou: by setting, in the order of the trials.
        rewards: of the same settings.
        chosen: mIoU of the setting with the highest reward.
    """

    what: str
    images: int
    miou: dict[AnySetting, float]
    rewards: dict[AnySetting, float]
    chosen: float

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's, over the settings; None where one side does not vary."""
        ranks = [pd.Series(list(values.values())).rank().to_numpy() for values in (self.rewards, self.miou)]
        if any(len(set(rank)) < 2 for rank in ranks):
            return None
        return float(np.corrcoef(ranks)[0, 1])

    def as_json(self) -> dict[str, object]:
        """Figures for people; masks were not used in the search."""
        values = np.array(list(self.miou.values()))
        return {
            "what": self.what,
            "images": self.images,
            "settings": len(values),
            "rank_correlation": self.rank_correlation,
            "miou_chosen": self.chosen,
            "miou_best": float(values.max()),
            "miou_median": float(np.median(values)),
        }


def with_masks(plan: TunePlan, keys: Collection[str]) -> Dataset | None:
    """Some tuning pictures with their masks; None when there are none."""
    if plan.config.classes:
        return None
    try:
        return tuning_dataset(plan.config).restricted(keys).with_truth(plan.config.ground_truth)
    except DatasetError:
        return None


def _mask_config(plan: TunePlan) -> MaskConfig:
    """The masks stage's configuration but for what is searched; the background rule resolved."""
    masks = resolved_masks(plan.config, plan.card)
    crf = masks.crf.model_copy(update={"name": "off"} if plan.config.compare.masks == "plain" else {})
    return masks.model_copy(update={"crf": crf})


@dataclass
class _Scorer:
    """Counts the pixels of all settings, picture by picture."""

    plan: TunePlan
    settings: list[AnySetting]
    masks: MaskConfig
    refine: Refiner
    counts: list[ConfusionMatrix]

    @classmethod
    def create(cls, plan: TunePlan, settings: list[AnySetting]) -> _Scorer:
        zeros, masks = ConfusionMatrix.zeros(len(plan.card.classes) + 1), _mask_config(plan)
        refine = open_refiner(masks.crf, plan.config.runtime.device)
        return cls(plan, settings, masks, refine, [zeros] * len(settings))

    def maps_of(self, shard: ShardRef) -> Opened[Any]:
        """The maps of all pictures of a shard."""
        images = read_images(self.plan.maps, shard.name)
        return self.plan.maps.open(self.settings, shard, images, self.plan.config.runtime)

    def add(self, sample: Sample, image: CachedMaps, maps: Opened[Any]) -> None:
        """Count one picture under every setting."""
        classes = len(self.plan.card.classes) + 1
        pixels = decode_image(sample.image, self.plan.config.salience.max_pixels).pixels
        truth = decode_label_map(sample.label_map or b"")
        for i, setting in enumerate(self.settings):
            own, decide = maps.decision(setting, image, self.masks)
            (made,) = make_label_maps([own], [pixels], decide, self.refine, self.masks.max_side)
            self.counts[i] += ConfusionMatrix.of(truth, made.labels, classes)


def compare(
    plan: TunePlan, shards: list[ShardRef], trials: list[Trial], progress: Progress = silent
) -> Comparison | None:
    """MIoU of every setting that was tried, or what an earlier run of the same comparison found.

    Returns:
        None when there are no masks, or nobody asked.
    """
    config = plan.config
    if config.compare.masks == "off":
        return None
    wanted = _first_images(plan, shards)
    dataset = with_masks(plan, {image.key for images in wanted.values() for image in images})
    if dataset is None:
        return None
    rewards = {trial.setting: trial.reward for trial in trials}
    asked = [VERSION, dataset.digest(None), config.compare.model_dump()]
    asked += [{**_mask_config(plan).facts(), **config.method.mask_facts()}]
    asked += [*plan.maps.compare_facts, [setting.columns for setting in rewards]]
    file = f"{plan.search_folder(shards)}/compare-{fingerprint(*asked)}.parquet"
    if table := plan.run.find_table(file):
        miou, images = table["miou"].to_pylist(), int((table.schema.metadata or {})[b"images"])
    else:
        miou, images = _score(plan, list(rewards), wanted, dataset, progress)
        rows = [{**s.columns, "reward": rewards[s], "miou": value} for s, value in zip(rewards, miou, strict=True)]
        plan.run.write(file, table_bytes(pa.Table.from_pylist(rows).replace_schema_metadata({"images": str(images)})))
    if not images:
        return None
    found = dict(zip(rewards, miou, strict=True))
    return Comparison(config.compare.masks, images, found, rewards, found[best_trial(trials).setting])


def _first_images(plan: TunePlan, shards: list[ShardRef]) -> dict[ShardRef, list[CachedMaps]]:
    """The first pictures that have maps, as many as are to be compared, by shard."""
    left, found = plan.config.compare.images, {}
    for shard in shards:
        images = read_images(plan.maps, shard.name)[:left]
        left -= len(images)
        if images:
            found[shard] = images
    return found


def _score(
    plan: TunePlan,
    settings: list[AnySetting],
    wanted: dict[ShardRef, list[CachedMaps]],
    dataset: Dataset,
    progress: Progress,
) -> tuple[list[float], int]:
    """MIoU of each setting over the wanted pictures that have masks, and how many those are."""
    full, scored_images = plan.config.compare.masks == "full", 0
    scorer = _Scorer.create(plan, [plan.maps.entire(plan.config, s) if full else s for s in settings])
    for shard, images in wanted.items():
        by_key = {image.key: image for image in images}
        maps = scorer.maps_of(shard)
        for sample in islice(dataset.restricted(by_key).samples(), len(by_key)):
            if sample.label_map is not None:
                scorer.add(sample, by_key[sample.key], maps)
                scored_images += 1
            progress(1)
    scored = scored_labels(plan.card, class_subset(plan.config, plan.card))
    return [matrix.mean_iou("present", scored) for matrix in scorer.counts], scored_images
