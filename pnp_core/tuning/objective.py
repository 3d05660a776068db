"""The objective of the search: a setting to the reward of its regions on the tuning pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np

from pnp_core.data import ShardRef, Summary
from pnp_core.errors import PnpError
from pnp_core.stages.config import RuntimeConfig
from pnp_core.tuning.cache import read_images, read_pixels
from pnp_core.tuning.judge import load_onlooker
from pnp_core.tuning.plan import TunePlan
from pnp_core.tuning.reward import REWARDS, Judge, RegionSimilarity
from pnp_core.tuning.space import AnySetting
from pnp_core.tuning.subject import CachedMaps, Opened

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
            iterations), `regions` (threshold, resize, blur; of other methods their decisions) and `judge`.
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
        onlooker = load_onlooker(plan.config, plan.maps.salience.pinned, captions, runtime)
        return cls(plan, shards, Judge(onlooker, plan.config.reward.batch_size), runtime)

    def __call__(self, setting: AnySetting) -> float:
        """Mean score over all (picture, class) of all shards; there must be one.

        Raises:
            PnpError: the judge gives no number.
        """
        reward = float(np.concatenate([self._shard_scores(setting, shard) for shard in self.shards]).mean())
        if not math.isfinite(reward):
            raise PnpError(f"the reward of {setting} is not a number: what the judge says is not; check its weights")
        return reward

    def _shard_scores(self, setting: AnySetting, shard: ShardRef) -> np.ndarray:
        images = read_images(self.plan.maps, shard.name)
        if not images:
            return np.zeros(0)
        with self._timed("maps"):
            maps = self.plan.maps.open([setting], shard, images, self.runtime)
            pixels = read_pixels(self.plan.images, shard.name)
        score = REWARDS.get(self.plan.config.reward.kind).score
        sights = (self._sight(setting, images[at], maps, pixels[at]) for at in _parts(images))
        return np.concatenate([score(sight) for sight in sights])

    def _sight(
        self, setting: AnySetting, images: list[CachedMaps], maps: Opened[Any], pixels: np.ndarray
    ) -> RegionSimilarity:
        """What the judge sees in the regions of some neighbouring pictures of a shard."""
        column = {label: i for i, label in enumerate(self.plan.vocabulary)}
        own = [tuple(column[label] for label in image.classes) for image in images]
        with self._timed("regions"):
            found = maps.regions(setting, images, self.judge.onlooker.size)
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
