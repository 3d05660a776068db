"""The objective of the search: a setting to the reward of its regions on the tuning pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np

from pnp_core.backbones import resolve_device
from pnp_core.clip_model import load_clip
from pnp_core.config import RuntimeConfig
from pnp_core.errors import PnpError
from pnp_core.masks import sum_iterations
from pnp_core.records import ShardRef
from pnp_core.reward import REWARDS, Judge, Sight, regions
from pnp_core.search import Setting
from pnp_core.stages.cache import CachedPicture, read_maps, read_pictures, read_pixels
from pnp_core.stages.salience import SalienceJob, extract_shard, read_salience
from pnp_core.tuning.plan import TunePlan


class NothingToTuneError(PnpError):
    """No picture has a class."""


def job_of(plan: TunePlan, setting: Setting, runtime: RuntimeConfig | None = None) -> SalienceJob:
    """The salience stage's job for a setting, drop iterations included."""
    job = plan.maps.salience
    dropout = job.config.dropout.model_copy(update={"iterations": setting.iterations})
    chosen = {"layer": setting.layer, "head": setting.head, "dropout": dropout}
    config = job.config.model_copy(update=chosen)
    return job.model_copy(update={"config": config, "runtime": runtime or job.runtime})


def setting_maps(
    plan: TunePlan, setting: Setting, shard: ShardRef, pictures: list[CachedPicture], runtime: RuntimeConfig
) -> np.ndarray:
    """Summed class maps (R, gh, gw) of a shard for a setting's layer, head and drop iterations.

    One iteration comes from the cache. More are computed once by the salience stage, which keeps them
    as it always does.
    """
    if setting.iterations == 1:
        return read_maps(plan.maps, shard.name, setting.layer, setting.head).astype(np.float32)
    job = job_of(plan, setting, runtime)
    extract_shard(job, shard)
    stored = read_salience(job.folder, shard.name)
    rule = plan.config.masks.sum
    summed = [sum_iterations(stored[picture.key].maps, rule) for picture in pictures]
    return np.concatenate(summed) if summed else np.zeros((0, 1, 1), np.float32)


@dataclass
class Objective:
    """Rewards settings; keeps a judge, and counts where the time goes.

    Attributes:
        seconds: by part: `maps` (reading them, and the vision-language model where there are more drop
            iterations), `regions` (threshold, resize, blur) and `clip`.
    """

    plan: TunePlan
    shards: list[ShardRef]
    judge: Judge
    runtime: RuntimeConfig
    seconds: dict[str, float] = field(default_factory=lambda: {"maps": 0.0, "regions": 0.0, "clip": 0.0})

    @classmethod
    def create(cls, plan: TunePlan, shards: list[ShardRef], runtime: RuntimeConfig) -> Objective:
        """Load the judge.

        Raises:
            CheckpointError: CLIP's weights are not at hand.
        """
        reward = plan.config.reward
        clip: Any = reward.clip  # frozen, hence hashable, which type checkers do not see
        captions = [plan.card.captions[label - 1] for label in plan.vocabulary]
        model = load_clip(clip, str(resolve_device(runtime.device)))
        return cls(plan, shards, Judge.create(model, captions, reward.clip.template, reward.batch_size), runtime)

    def __call__(self, setting: Setting) -> float:
        """Mean score over all (picture, class) of all shards.

        Raises:
            NothingToTuneError: there are none.
        """
        scores = [self._shard_scores(setting, shard) for shard in self.shards]
        found = np.concatenate(scores)
        if not len(found):
            raise NothingToTuneError("no tuning picture has a class: there is nothing to reward; see --candidates")
        return float(found.mean())

    def _shard_scores(self, setting: Setting, shard: ShardRef) -> np.ndarray:
        pictures = read_pictures(self.plan.maps, shard.name)
        if not pictures:
            return np.zeros(0)
        with self._timed("maps"):
            maps = setting_maps(self.plan, setting, shard, pictures, self.runtime)
            pixels = read_pixels(self.plan.pictures, shard.name)
        sights = [self._sight(setting, pictures, maps, pixels, part) for part in self._parts(pictures)]
        return np.concatenate([REWARDS[self.plan.config.reward.kind](sight) for sight in sights])

    def _parts(self, pictures: list[CachedPicture]) -> Iterator[range]:
        """Pictures a few at a time, so that their regions at CLIP's size fit in memory."""
        step = 8
        return (range(i, min(i + step, len(pictures))) for i in range(0, len(pictures), step))

    def _sight(
        self, setting: Setting, pictures: list[CachedPicture], maps: np.ndarray, pixels: np.ndarray, part: range
    ) -> Sight:
        column = {label: i for i, label in enumerate(self.plan.vocabulary)}
        own = [tuple(column[label] for label in pictures[i].classes) for i in part]
        with self._timed("regions"):
            rows = slice(pictures[part[0]].rows.start, pictures[part[-1]].rows.stop)
            found = regions(maps[rows], setting.threshold, setting.blur, self.judge.clip.size)
        picture_of = np.repeat(np.arange(len(part)), [len(labels) for labels in own])
        with self._timed("clip"):
            names = [pictures[i].key for i in part]
            similarity = self.judge.similarity(pixels[part.start : part.stop], names, picture_of, found)
            blank = self.judge.blank()
        return Sight(
            similarity=similarity,
            blank=blank,
            label=np.array([label for labels in own for label in labels]),
            labels=tuple(labels for labels in own for _ in labels),
            area=found.mean(axis=(1, 2)),
        )

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = monotonic()
        yield
        self.seconds[part] += monotonic() - start
