"""The objective of the search: a setting to the reward of its regions on the tuning pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

import numpy as np

from pnp_core.data import ShardRef, Summary
from pnp_core.errors import PnpError
from pnp_core.finite import require_finite
from pnp_core.methods.pnp.channels import sum_iterations
from pnp_core.stages.config import RuntimeConfig
from pnp_core.stages.maps import SalienceJob, extract_shard
from pnp_core.storage.class_maps import read_class_maps
from pnp_core.tuning.cache import CachedMaps, read_images, read_maps, read_pixels
from pnp_core.tuning.judge import load_onlooker
from pnp_core.tuning.plan import TunePlan
from pnp_core.tuning.reward import REWARDS, Judge, RegionSimilarity, regions
from pnp_core.tuning.search import Setting

REGIONS_AT_ONCE = 256
"""Regions of the judge's size that are held in memory, unless one picture alone has more."""


class NothingToTuneError(PnpError):
    """No picture has a class."""


def require_images(plan: TunePlan, shards: list[ShardRef], summary: Summary) -> None:
    """Make sure that there is something to reward.

    Args:
        shards: that have maps.
        summary: of the run so far.

    Raises:
        NothingToTuneError: no picture of the maps cache has a class; with the most frequent reasons.
    """
    if any(read_images(plan.maps, shard.name) for shard in shards):
        return
    frequent = list(summary.reasons.items())[:3]
    told = "; ".join(f"{number} x {reason}" for reason, number in frequent) or "see --candidates"
    advice = "; --image-labels masks or --candidates itm may help" if _by_labels(plan) else ""
    raise NothingToTuneError(f"nothing to tune on: none of {summary.images} pictures has a class ({told}){advice}")


def _by_labels(plan: TunePlan) -> bool:
    return plan.config.salience.candidates.source == "labels"


def job_of(plan: TunePlan, setting: Setting, runtime: RuntimeConfig | None = None) -> SalienceJob:
    """The salience stage's job for a setting, drop iterations included."""
    job = plan.maps.salience
    method = plan.config.method
    dropout = method.dropout.model_copy(update={"iterations": setting.iterations})
    chosen = {"layer": setting.layer, "head": setting.head, "dropout": dropout}
    return job.model_copy(update={"method": method.model_copy(update=chosen), "runtime": runtime or job.runtime})


def setting_maps(
    plan: TunePlan, setting: Setting, shard: ShardRef, images: list[CachedMaps], runtime: RuntimeConfig
) -> np.ndarray:
    """Summed class maps (R, gh, gw) of a shard for a setting's layer, head and drop iterations.

    One iteration comes from the cache. More are computed once by the salience stage, which keeps them
    as it always does.

    Raises:
        ShardError: maps of a picture are not finite.
    """
    if setting.iterations == 1:
        return read_maps(plan.maps, shard.name, setting.layer, setting.head).astype(np.float32)
    job = job_of(plan, setting, runtime)
    extract_shard(job, shard)
    stored = read_class_maps(job.folder, shard.name)
    rule = plan.config.method.sum
    summed = [sum_iterations(stored[image.key].maps, rule) for image in images]
    for image, maps in zip(images, summed, strict=True):  # the sum may overflow
        names = [plan.card.names[label - 1] for label in image.classes]
        require_finite(maps, "the salience summed over drop iterations", image.key, names, "it overflows")
    return np.concatenate(summed) if summed else np.zeros((0, 1, 1), np.float32)


def _parts(images: list[CachedMaps]) -> Iterator[slice]:
    """Neighbouring pictures with so many regions that those fit in memory."""
    start = 0
    for end in range(1, len(images) + 1):
        following = images[end].rows.stop if end < len(images) else math.inf
        if following - images[start].rows.start > REGIONS_AT_ONCE:
            yield slice(start, end)
            start = end


@dataclass
class Objective:
    """Rewards settings; keeps a judge, and counts where the time goes.

    Attributes:
        seconds: by part: `maps` (reading them, and the vision-language model where there are more drop
            iterations), `regions` (threshold, resize, blur) and `judge`.
    """

    plan: TunePlan
    shards: list[ShardRef]
    judge: Judge
    runtime: RuntimeConfig
    seconds: dict[str, float] = field(default_factory=lambda: {"maps": 0.0, "regions": 0.0, "judge": 0.0})

    @classmethod
    def create(cls, plan: TunePlan, shards: list[ShardRef], runtime: RuntimeConfig) -> Objective:
        """Load the judge.

        Raises:
            CheckpointError: the judge's weights are not at hand.
        """
        captions = [plan.card.captions[label - 1] for label in plan.vocabulary]
        onlooker = load_onlooker(plan.config, plan.maps.checkpoint, captions, runtime)
        return cls(plan, shards, Judge(onlooker, plan.config.reward.batch_size), runtime)

    def __call__(self, setting: Setting) -> float:
        """Mean score over all (picture, class) of all shards; there must be one.

        Raises:
            PnpError: the judge gives no number.
        """
        reward = float(np.concatenate([self._shard_scores(setting, shard) for shard in self.shards]).mean())
        if not math.isfinite(reward):
            raise PnpError(f"the reward of {setting} is not a number: what the judge says is not; check its weights")
        return reward

    def _shard_scores(self, setting: Setting, shard: ShardRef) -> np.ndarray:
        images = read_images(self.plan.maps, shard.name)
        if not images:
            return np.zeros(0)
        with self._timed("maps"):
            maps = setting_maps(self.plan, setting, shard, images, self.runtime)
            pixels = read_pixels(self.plan.images, shard.name)
        score = REWARDS.get(self.plan.config.reward.kind).score
        sights = (self._sight(setting, images[at], maps, pixels[at]) for at in _parts(images))
        return np.concatenate([score(sight) for sight in sights])

    def _sight(
        self, setting: Setting, images: list[CachedMaps], maps: np.ndarray, pixels: np.ndarray
    ) -> RegionSimilarity:
        """What the judge sees in the regions of some neighbouring pictures of a shard."""
        column = {label: i for i, label in enumerate(self.plan.vocabulary)}
        own = [tuple(column[label] for label in image.classes) for image in images]
        with self._timed("regions"):
            rows = slice(images[0].rows.start, images[-1].rows.stop)
            found = regions(maps[rows], setting.threshold, setting.blur, self.judge.onlooker.size)
        image_of = np.repeat(np.arange(len(own)), [len(labels) for labels in own])
        with self._timed("judge"):
            names = [image.key for image in images]
            moves = REWARDS.get(self.plan.config.reward.kind).elsewhere
            here, *elsewhere = (
                self.judge.similarity(pixels, names, image_of, seen)
                for seen in (found, *(move(found) for move in moves))
            )
            blank = self.judge.blank()
        return RegionSimilarity(
            similarity=here,
            blank=blank,
            label=np.array([label for labels in own for label in labels]),
            labels=tuple(labels for labels in own for _ in labels),
            area=found.mean(axis=(1, 2)),
            elsewhere=tuple(elsewhere),
        )

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = monotonic()
        yield
        self.seconds[part] += monotonic() - start
