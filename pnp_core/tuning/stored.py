"""Tuning of any method: its ordinary maps, made once by the salience stage, and its own decisions on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool
from pydantic import ValidationError

from pnp_core.data import ClassMaps, Progress, ShardRef, StageResult, silent
from pnp_core.errors import MethodError, UsageError
from pnp_core.frozen import OF_MASKS, marks, merge
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.label_map import Decide, decided
from pnp_core.methods import AnyMethod, method_of
from pnp_core.methods.base import Loaded, MethodConfig, Value
from pnp_core.stages.config import RuntimeConfig
from pnp_core.stages.maps import extract_shard
from pnp_core.storage.class_maps import read_class_maps
from pnp_core.storage.completion import StageFolder
from pnp_core.tuning.config import LISTS, SpaceConfig, TuneConfig
from pnp_core.tuning.space import PathSetting, PathSpace
from pnp_core.tuning.subject import CachedMaps, Opened, Subject

OF_DECIDE = ("threshold", "ties", "blur", "background")
"""Settings of the masks stage that scores are made by."""


def laid_over(method: MethodConfig, masks: MaskConfig, values: Mapping[str, Value]) -> tuple[MethodConfig, MaskConfig]:
    """Configurations with other values at some paths.

    Raises:
        ValidationError: they do not fit there.
    """
    parts: dict[str, Any] = {"method": method.model_dump(), "masks": masks.model_dump()}
    for path, value in values.items():
        nested: Any = value
        for name in reversed(path.split(".")):
            nested = {name: nested}
        parts = merge(parts, nested)
    return type(method).model_validate(parts["method"]), MaskConfig.model_validate(parts["masks"])


def checked(method: MethodConfig, masks: MaskConfig, path: str, values: Sequence[Value]) -> tuple[Value, ...]:
    """The values of an axis as the configuration has them, once it is sure that they can be searched.

    Raises:
        UsageError: a value is out of range.
        MethodError: the path is of no setting of `decide`, or its values are none that a log can hold.
    """
    part, _, name = path.partition(".")
    field = type(method).model_fields.get(name.partition(".")[0])
    of_decide = name in OF_DECIDE if part == "masks" else part == "method" and field and OF_MASKS in marks(field)
    if not of_decide:
        raise MethodError(f"method {method.name} would have '{path}' searched, which is no setting of its decisions")
    found = [_checked(method, masks, path, value) for value in values]
    if not found or len({type(value) for value in found}) > 1 or not isinstance(found[0], bool | int | float | str):
        raise MethodError(f"method {method.name} would have '{path}' searched, not over values of one kind")
    return tuple(found)


def _checked(method: MethodConfig, masks: MaskConfig, path: str, value: Value) -> Value:
    try:
        found: Any = dict(zip(("method", "masks"), laid_over(method, masks, {path: value}), strict=True))
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"space of {method.name}: {path} {value}: {message}") from error
    return _at(found, path)


def _at(parts: Mapping[str, Any], path: str) -> Any:
    """The value at a path such as `masks.threshold`."""
    part, *names = path.split(".")
    found = parts[part]
    for name in names:
        found = getattr(found, name)
    return found


class StoredMaps(Subject):
    """The maps of a method as every run has them; a setting decides on them as the masks stage would."""

    method: AnyMethod
    masks: MaskConfig
    """With `background` resolved; what is searched does not count."""

    @property
    def fingerprint(self) -> str:
        """That of the salience stage."""
        return self.salience.fingerprint

    @property
    def folder(self) -> StageFolder:
        """That of the salience stage."""
        return self.salience.folder

    @property
    def reward_facts(self) -> list[Any]:
        """The settings of decisions that are not searched."""
        searched = self.method.space()
        own = {name: getattr(self.masks, name) for name in OF_DECIDE if f"masks.{name}" not in searched}
        return [own, self.method.mask_facts()]

    def load(self) -> Loaded:
        """The method with its model."""
        return self.salience.load()

    def keep(self, shard: ShardRef, progress: Progress = silent) -> StageResult:
        """Make the maps of a shard, unless they are complete."""
        return extract_shard(self.salience, shard, progress)

    def space(self, wanted: SpaceConfig) -> PathSpace:
        """What the method declares; of threshold and blur the values that are wanted.

        Raises:
            UsageError: something is wanted that is not searched for this method, or a value is out of range.
            MethodError: what the method declares cannot be searched.
        """
        declared, usual, name = self.method.space(), SpaceConfig(), self.method.name
        for field in ("layers", "heads", "iterations"):
            if getattr(wanted, field) != getattr(usual, field):
                raise UsageError(f"{name} has no {field} to choose from: leave out space.{field}")
        for path, field in LISTS.items():
            if path not in declared and getattr(wanted, field) != getattr(usual, field):
                raise UsageError(f"{name} does not search {path}: leave out space.{field}")
        lists = {p: getattr(wanted, LISTS[p]) if p in LISTS else values for p, values in declared.items()}
        return PathSpace(tuple((p, checked(self.method, self.masks, p, values)) for p, values in lists.items()))

    def decide(self, setting: PathSetting, masks: MaskConfig) -> Decide:
        """What makes scores of maps under a setting.

        Args:
            masks: what holds besides it.
        """
        method, own = laid_over(self.method, masks, setting.columns)
        return partial(method_of(method).decision(method, self.salience.pinned), own)

    def open(
        self, settings: Sequence[PathSetting], shard: ShardRef, images: list[CachedMaps], runtime: RuntimeConfig
    ) -> OpenedMaps:
        """All maps of the shard: every setting is tried on the same."""
        return OpenedMaps(self, read_class_maps(self.folder, shard.name))

    def configured(self, config: TuneConfig, like: PathSetting) -> PathSetting:
        """The values that the method and the masks have at the paths of a setting."""
        parts: dict[str, Any] = {"method": self.method, "masks": self.masks}
        return PathSetting(tuple((path, _at(parts, path)) for path in like.columns))

    def chosen(self, config: TuneConfig, setting: PathSetting) -> dict[str, dict[str, Any]]:
        """The whole method, and of the masks what decisions are made by."""
        method, masks = laid_over(self.method.with_revision(self.salience.pinned), config.masks, setting.columns)
        own = {name: getattr(masks, name) for name in OF_DECIDE}
        return {"method": method.model_dump(mode="json"), "masks": own}


@dataclass(frozen=True)
class OpenedMaps(Opened[PathSetting]):
    """The stored maps of a shard by key."""

    subject: StoredMaps
    maps: dict[str, ClassMaps]

    def regions(self, setting: PathSetting, images: Sequence[CachedMaps], side: int) -> Bool[np.ndarray, "R side side"]:
        """The pixels that each class wins, unrefined.

        Raises:
            MethodError: scores fit neither size nor classes.
        """
        decide = self.subject.decide(setting, self.subject.masks)
        return np.concatenate([won(decide, self.maps[image.key], side) for image in images])

    def decision(self, setting: PathSetting, image: CachedMaps, masks: MaskConfig) -> tuple[ClassMaps, Decide]:
        """The stored maps, and the method's decision."""
        return self.maps[image.key], self.subject.decide(setting, masks)


def won(decide: Decide, maps: ClassMaps, side: int) -> Bool[np.ndarray, "C side side"]:
    """The pixels that each candidate class wins, of a picture squashed to a side, unrefined.

    Nobody wins a pixel where a score is no number.

    Raises:
        MethodError: the scores fit neither size nor classes.
    """
    scores = decided(decide, maps, (side, side))
    channels = scores.finished(scores.channels)
    winner = np.where(np.isnan(channels).any(axis=0), -1, np.array(scores.labels)[channels.argmax(axis=0)])
    return winner == np.array(maps.classes)[:, None, None]
