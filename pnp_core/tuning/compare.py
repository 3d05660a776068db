"""What the reward is worth, where there are masks: mIoU of every setting that was tried.

Called when the choice is made. Nothing here reaches the search.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from itertools import islice

import numpy as np
import pandas as pd
import pyarrow as pa

from pnp_core.data import ClassMaps, Progress, Sample, ShardRef, silent
from pnp_core.errors import DatasetError
from pnp_core.inputs.images import decode_image, decode_label_map
from pnp_core.inputs.readers import Dataset
from pnp_core.masks.config import MaskConfig
from pnp_core.methods.pnp.channels import make_label_map
from pnp_core.metrics import ConfusionMatrix
from pnp_core.runs.plan import class_subset, scored_labels
from pnp_core.storage.run_folder import fingerprint, table_bytes
from pnp_core.tuning.cache import CachedMaps, read_images
from pnp_core.tuning.config import TuneConfig
from pnp_core.tuning.objective import setting_maps
from pnp_core.tuning.plan import TunePlan, tuning_dataset
from pnp_core.tuning.search import Setting, Trial, best_trial

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
    miou: dict[Setting, float]
    rewards: dict[Setting, float]
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


def method_setting(config: TuneConfig, setting: Setting) -> Setting:
    """A setting with the drop iterations that the method will have."""
    if config.space.iterations != (1,):
        return setting
    return replace(setting, iterations=config.method.dropout.iterations)


def _with_masks(plan: TunePlan, keys: Collection[str]) -> Dataset | None:
    """Some tuning pictures with their masks; None when there are none."""
    if plan.config.classes:
        return None
    try:
        return tuning_dataset(plan.config).restricted(keys).with_truth(plan.config.ground_truth)
    except DatasetError:
        return None


def _mask_config(plan: TunePlan) -> MaskConfig:
    """The masks stage's configuration but for what is searched; the background rule resolved."""
    config = plan.config
    rule = plan.card.background_rule if config.masks.background == "auto" else config.masks.background
    crf = config.masks.crf.model_copy(update={"name": "off"} if config.compare.masks == "plain" else {})
    return config.masks.model_copy(update={"background": rule, "crf": crf})


@dataclass
class _Scorer:
    """Counts the pixels of all settings, picture by picture."""

    plan: TunePlan
    settings: list[Setting]
    counts: list[ConfusionMatrix]

    @classmethod
    def create(cls, plan: TunePlan, settings: list[Setting]) -> _Scorer:
        zeros = ConfusionMatrix.zeros(len(plan.card.classes) + 1)
        return cls(plan, settings, [zeros] * len(settings))

    def maps_of(self, shard: ShardRef) -> dict[tuple[int, int, int], np.ndarray]:
        """Summed maps of all pictures of a shard, by layer, head and iterations."""
        runtime, images = self.plan.config.runtime, read_images(self.plan.maps, shard.name)
        wanted = {(s.layer, s.head, s.iterations): s for s in self.settings}
        return {pair: setting_maps(self.plan, s, shard, images, runtime) for pair, s in wanted.items()}

    def add(self, sample: Sample, image: CachedMaps, maps: dict[tuple[int, int, int], np.ndarray]) -> None:
        """Count one picture under every setting."""
        base, classes = _mask_config(self.plan), len(self.plan.card.classes) + 1
        # The iterations are summed already.
        summed = self.plan.config.method.model_copy(update={"sum": "plain", "passes": None})
        pixels = decode_image(sample.image, self.plan.config.salience.max_pixels).pixels
        truth = decode_label_map(sample.label_map or b"")
        for i, setting in enumerate(self.settings):
            own = maps[setting.layer, setting.head, setting.iterations][image.rows]
            salience = ClassMaps(own[None], image.classes, None, image.height, image.width)
            masks = base.model_copy(update={"threshold": setting.threshold, "blur": setting.blur})
            labels = make_label_map(salience, pixels, masks, summed, self.plan.config.runtime.device).labels
            self.counts[i] += ConfusionMatrix.of(truth, labels, classes)


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
    dataset = _with_masks(plan, {image.key for images in wanted.values() for image in images})
    if dataset is None:
        return None
    rewards = {trial.setting: trial.reward for trial in trials}
    asked = [VERSION, dataset.digest(None), config.compare.model_dump()]
    asked += [{**_mask_config(plan).facts(), **config.method.mask_facts()}]
    asked += [config.method.dropout.model_dump(), [asdict(setting) for setting in rewards]]
    file = f"{plan.search_folder(shards)}/compare-{fingerprint(*asked)}.parquet"
    if table := plan.run.find_table(file):
        miou, images = table["miou"].to_pylist(), int((table.schema.metadata or {})[b"images"])
    else:
        miou, images = _score(plan, list(rewards), wanted, dataset, progress)
        rows = [{**asdict(s), "reward": rewards[s], "miou": value} for s, value in zip(rewards, miou, strict=True)]
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
    settings: list[Setting],
    wanted: dict[ShardRef, list[CachedMaps]],
    dataset: Dataset,
    progress: Progress,
) -> tuple[list[float], int]:
    """MIoU of each setting over the wanted pictures that have masks, and how many those are."""
    full, scored_images = plan.config.compare.masks == "full", 0
    scorer = _Scorer.create(plan, [method_setting(plan.config, s) if full else s for s in settings])
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
