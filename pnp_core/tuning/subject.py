"""What is tuned: stored maps of a method, and what a setting makes of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Bool

from pnp_core.data import ClassMaps, Progress, Sample, ShardRef, StageResult, silent
from pnp_core.frozen import Config
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.label_map import Decide
from pnp_core.methods.base import Loaded
from pnp_core.stages.config import RuntimeConfig
from pnp_core.stages.maps import SalienceJob
from pnp_core.storage.completion import StageFolder
from pnp_core.tuning.config import SpaceConfig, TuneConfig
from pnp_core.tuning.space import AnySetting, AnySpace

Setting = TypeVar("Setting", bound=AnySetting)


@dataclass(frozen=True)
class CachedMaps:
    """A picture that has maps: its classes, and the rows of the shard's (picture, class) that are theirs."""

    key: str
    source: str
    height: int
    width: int
    classes: tuple[int, ...]
    rows: slice


class Opened(ABC, Generic[Setting]):
    """The maps of a shard, in memory, for some settings."""

    @abstractmethod
    def regions(self, setting: Setting, images: Sequence[CachedMaps], side: int) -> Bool[np.ndarray, "R side side"]:
        """What the judge is to see of each (picture, class) of some neighbouring pictures.

        Args:
            side: of the judge's input in pixels; the whole picture is squashed to it.
        """

    @abstractmethod
    def decision(self, setting: Setting, image: CachedMaps, masks: MaskConfig) -> tuple[ClassMaps, Decide]:
        """A picture's maps, and what makes scores of them.

        Args:
            masks: what holds besides the setting; `background` resolved.
        """


class Subject(Config):
    """Maps of a method for any shard of a run, and what a setting makes of them.

    Which kind of setting is the subject's own: it takes those of its space alone.
    """

    salience: SalienceJob
    """Its weights are pinned."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Names the maps."""

    @property
    @abstractmethod
    def folder(self) -> StageFolder:
        """Where the maps lie; of each picture the table has what `image_row` says."""

    @property
    @abstractmethod
    def reward_facts(self) -> list[Any]:
        """What rewards depend on besides maps, pictures, judge and setting."""

    @property
    def compare_facts(self) -> list[Any]:
        """What label maps depend on besides that, the masks' configuration and what names the method's masks."""
        return []

    @abstractmethod
    def load(self) -> Loaded:
        """What makes the maps.

        Raises:
            UsageError: the weights do not fit.
        """

    @abstractmethod
    def keep(self, shard: ShardRef, progress: Progress = silent) -> StageResult:
        """Keep the maps of a shard, unless that is complete.

        Raises:
            ShardError: a number of a picture is not finite.
        """

    @abstractmethod
    def space(self, wanted: SpaceConfig) -> AnySpace[Any]:
        """What settings are chosen from.

        Raises:
            UsageError: something is wanted that the method or its weights do not have.
        """

    @abstractmethod
    def open(
        self, settings: Sequence[Any], shard: ShardRef, images: list[CachedMaps], runtime: RuntimeConfig
    ) -> Opened[Any]:
        """The maps of a shard that some settings need.

        Args:
            images: all of the shard.
        """

    def entire(self, config: TuneConfig, setting: Any) -> Any:
        """A setting with all that the method will do, where the search saw less."""
        return setting

    @abstractmethod
    def configured(self, config: TuneConfig, like: Any) -> Any | None:
        """The setting that the configuration has, None where its weights do not have it.

        Args:
            like: a setting that the search saw, for what the configuration does not say of one.
        """

    def decisions(
        self,
        setting: Any,
        shard: ShardRef,
        samples: Sequence[Sample],
        masks: MaskConfig,
        runtime: RuntimeConfig,
    ) -> dict[str, tuple[ClassMaps, Decide]]:
        """Of a few pictures that have a class their maps under a setting, and what makes scores of them, by key.

        Args:
            samples: of the shard.
            masks: what holds besides the setting; `background` resolved.
        """
        images = self.images(shard.name)
        opened, keys = self.open([setting], shard, images, runtime), {sample.key for sample in samples}
        return {image.key: opened.decision(setting, image, masks) for image in images if image.key in keys}

    @abstractmethod
    def chosen(self, config: TuneConfig, setting: Any) -> dict[str, dict[str, Any]]:
        """The parts `method` and `masks` of a configuration that a setting was chosen as, and all of theirs that the
        choice depends on.
        """

    def images(self, shard: str) -> list[CachedMaps]:
        """The pictures of a shard that have a class, in the order of the maps."""
        images, start = [], 0
        for row in self.folder.read_table(shard, "parquet").to_pylist():
            classes = tuple(row["classes"])
            if classes:
                rows = slice(start, start + len(classes))
                images.append(CachedMaps(row["key"], row["source"], row["height"], row["width"], classes, rows))
                start = rows.stop
        return images
