"""What the reward is worth, where there are masks: mIoU of every setting that was tried.

Called when the choice is made. Nothing here reaches the search.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from pnp_core.config import TuneConfig
from pnp_core.errors import DatasetError
from pnp_core.images import decode_image, decode_label_map
from pnp_core.masks import make_label_map
from pnp_core.metrics import ConfusionMatrix
from pnp_core.readers import with_truth
from pnp_core.records import Progress, SalienceMaps, Sample, ShardRef, silent
from pnp_core.search import Setting, Trial, best_trial
from pnp_core.stages.cache import CachedPicture, read_pictures
from pnp_core.store import fingerprint, table_bytes
from pnp_core.tuning.objective import setting_maps
from pnp_core.tuning.plan import TunePlan, reads_masks, tuning_dataset


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
    return replace(setting, iterations=config.salience.dropout.iterations)


def _truth(plan: TunePlan) -> Iterator[Sample] | None:
    """The tuning pictures with their masks; None when there are none."""
    if plan.config.classes:
        return None
    try:
        same = tuning_dataset(plan.config, truth=reads_masks(plan.config, plan.card))
        return with_truth(same, plan.config.ground_truth).samples()
    except DatasetError:
        return None


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

    def maps_of(self, shard: ShardRef, pictures: list[CachedPicture]) -> dict[tuple[int, int, int], np.ndarray]:
        """Summed maps of one shard, by layer, head and iterations."""
        runtime = self.plan.config.runtime
        wanted = {(s.layer, s.head, s.iterations): s for s in self.settings}
        return {pair: setting_maps(self.plan, s, shard, pictures, runtime) for pair, s in wanted.items()}

    def add(self, sample: Sample, picture: CachedPicture, maps: dict[tuple[int, int, int], np.ndarray]) -> None:
        """Count one picture under every setting."""
        config, card = self.plan.config, self.plan.card
        rule = card.background_rule if config.masks.background == "auto" else config.masks.background
        crf = config.masks.crf.model_copy(update={"name": "off"} if config.compare.masks == "plain" else {})
        pixels = decode_image(sample.image, config.salience.max_pixels).pixels
        truth = decode_label_map(sample.label_map or b"")
        for i, setting in enumerate(self.settings):
            own = maps[setting.layer, setting.head, setting.iterations][picture.rows]
            itm = np.zeros(len(picture.classes), np.float32)
            salience = SalienceMaps(own[None], picture.classes, itm, picture.height, picture.width)
            chosen = {"threshold": setting.threshold, "blur": setting.blur, "background": rule, "crf": crf}
            # The iterations are summed already.
            masks = config.masks.model_copy(update={**chosen, "sum": "plain"})
            labels = make_label_map(salience, pixels, masks).labels
            self.counts[i] += ConfusionMatrix.of(truth, labels, len(card.classes) + 1)


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
    rewards = {trial.setting: trial.reward for trial in trials}
    asked = [config.compare.model_dump(), config.masks.model_dump(), config.salience.dropout.model_dump()]
    file = f"{plan.search_folder(shards)}/compare-{fingerprint(asked, [asdict(s) for s in rewards])}.parquet"
    best = best_trial(trials).setting
    if plan.run.exists(file):
        table = plan.run.read_table(file)
        miou = dict(zip(rewards, table["miou"].to_pylist(), strict=True))
        images = int((table.schema.metadata or {})[b"images"])
        return Comparison(config.compare.masks, images, miou, rewards, miou[best])
    samples = _truth(plan)
    if samples is None:
        return None
    full = config.compare.masks == "full"
    scorer = _Scorer.create(plan, [method_setting(config, s) if full else s for s in rewards])
    images = _score(scorer, shards, samples, config.compare.images, progress)
    if not images:
        return None
    scored = range(0 if plan.card.background else 1, len(plan.card.classes) + 1)
    means = [matrix.mean_iou("present", tuple(scored)) for matrix in scorer.counts]
    miou = dict(zip(rewards, means, strict=True))
    rows = [{**asdict(setting), "reward": rewards[setting], "miou": value} for setting, value in miou.items()]
    plan.run.write(file, table_bytes(pa.Table.from_pylist(rows).replace_schema_metadata({"images": str(images)})))
    return Comparison(config.compare.masks, images, miou, rewards, miou[best])


def _score(scorer: _Scorer, shards: list[ShardRef], samples: Iterator[Sample], limit: int, progress: Progress) -> int:
    """Score the first pictures that have maps and masks; how many they were."""
    plan, images = scorer.plan, 0
    cached = ((shard, read_pictures(plan.maps, shard.name)) for shard in shards)
    for shard, pictures in cached:
        by_key = {picture.key: picture for picture in pictures}
        maps = scorer.maps_of(shard, pictures) if pictures else {}
        for _ in range(shard.samples):
            sample = next(samples, None)
            if sample is None or images == limit:
                return images
            if sample.key in by_key and sample.label_map is not None:
                scorer.add(sample, by_key[sample.key], maps)
                images += 1
                progress(1)
    return images
