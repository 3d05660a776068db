"""The finished runs that an ensemble puts together: what their records say, and their stored maps by key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

from pydantic import ValidationError

from pnp_core.data import ClassMaps
from pnp_core.errors import MissingMaps, UsageError
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.label_map import Scores
from pnp_core.methods import method_config, method_of
from pnp_core.methods.base import MethodConfig, Pinned
from pnp_core.methods.ensemble.config import ENSEMBLE, OF_THE_RUNS
from pnp_core.storage.class_maps import STAGE, read_class_maps
from pnp_core.storage.completion import StageFolder
from pnp_core.storage.finished import OWN_IMAGES, Part, finished_shards, read_finished, set_aside
from pnp_core.storage.run_folder import RunFolder, fingerprint

KEPT_SHARDS = 2
"""Shards of each run whose maps are in memory: one is being read to its end while the next is begun."""


class _Salience(Part):
    candidates: dict[str, Any]


class _Configuration(Part):
    method: dict[str, Any] | None = None
    salience: _Salience
    masks: MaskConfig


class _Fingerprints(Part):
    salience: str
    masks: str


class _Card(Part):
    name: str


class _Record(Part):
    config: _Configuration
    classes: tuple[str, ...]
    fingerprints: _Fingerprints
    card: _Card | None


@dataclass(frozen=True)
class Member:
    """A finished run, as its record and its completion records have it.

    Attributes:
        run: its folder: a path or any fsspec URL.
        method, masks: what its scores are made by; `background` may be `auto`.
        card: name of the dataset card.
        classes: names of the labels 1, 2 ...
        candidates: configuration of how candidates were chosen, as JSON text.
        salience: fingerprint of its maps.
        masks_fingerprint: of the masks that it stands for.
        shards: those that have maps; of others, which were given up, it has no pictures.
        revision: names its maps as they are and all that scores are made by.
    """

    run: str
    method: MethodConfig
    masks: MaskConfig
    card: str
    classes: tuple[str, ...]
    candidates: str
    salience: str
    masks_fingerprint: str
    shards: tuple[str, ...]
    given_up: tuple[str, ...]
    revision: str

    @property
    def folder(self) -> StageFolder:
        """Where its maps lie."""
        return StageFolder(RunFolder(self.run), STAGE, self.salience)

    def facts(self) -> dict[str, str]:
        """For the record of the ensemble."""
        return {
            "run": self.run,
            "method": self.method.name,
            "salience": self.salience,
            "masks": self.masks_fingerprint,
            "revision": self.revision,
        }


@dataclass(frozen=True, kw_only=True)
class PinnedRuns(Pinned):
    """Finished runs, which an ensemble has in place of weights."""

    members: tuple[Member, ...]

    @property
    def runs(self) -> tuple[dict[str, str], ...]:
        """For the record of the ensemble."""
        return tuple(member.facts() for member in self.members)


def pin_runs(runs: tuple[str, ...]) -> PinnedRuns:
    """Read what runs say of themselves, and name their maps as they are now.

    Raises:
        UsageError: one is missing, unfinished, an ensemble itself, or of another version.
        DamagedError: a record of one is damaged.
    """
    members = tuple(read_member(run) for run in runs)
    return PinnedRuns(revision=fingerprint([member.revision for member in members]), members=members)


def read_member(url: str) -> Member:
    """A finished run.

    Raises:
        UsageError: it is missing, unfinished, an ensemble itself, or of another version.
        DamagedError: a record of it is damaged.
    """
    run = RunFolder(url)
    record = read_finished(run, _Record)
    method = _method(run, record)
    shards, given_up = finished_shards(run, StageFolder(run, STAGE, record.fingerprints.salience), "maps")
    # Runs that are older than the setting saw the centre.
    candidates = {"view": "centre", **record.config.salience.candidates}
    # Its refinement is not in here: the ensemble has its own.
    own = {name: value for name, value in record.config.masks.model_dump().items() if name in OF_THE_RUNS}
    made = fingerprint(record.fingerprints.salience, shards, own, method.mask_facts())
    return Member(
        run=url,
        method=method,
        masks=record.config.masks,
        card=record.card.name if record.card else OWN_IMAGES,
        classes=record.classes,
        candidates=json.dumps(candidates, sort_keys=True),
        salience=record.fingerprints.salience,
        masks_fingerprint=record.fingerprints.masks,
        shards=tuple(shards),
        given_up=tuple(given_up),
        revision=made,
    )


def _method(run: RunFolder, record: _Record) -> MethodConfig:
    values = record.config.method
    if values is None:
        raise UsageError(f"run '{run.url}' is of an earlier version; run the command that made it again")
    name = str(values.get("name"))
    if name == ENSEMBLE:
        raise UsageError(f"run '{run.url}' is an ensemble itself: name its runs, with their weights, in its place")
    try:
        return method_config(name).model_validate(values)
    except ValidationError as error:
        raise UsageError(
            f"run '{run.url}' was made by another version of {name}; run the command that made it again"
        ) from error


@dataclass(frozen=True)
class Known:
    """What is known of a picture before its maps are read: where they are, which classes they are of, its (H, W)."""

    shard: str
    classes: tuple[int, ...]
    size: tuple[int, int]


class StoredRun:
    """The stored maps of a finished run by key. Of all pictures only `Known` is in memory.

    Attributes:
        known: its pictures that have maps.
    """

    def __init__(self, member: Member) -> None:
        """Read the tables of all its shards.

        Raises:
            CorruptRunError: one is missing or damaged.
        """
        self.member = member
        self.known = dict(_known(member))
        self._set_aside = dict(set_aside(member.folder, (*member.shards, *member.given_up)))
        self._of_shard = lru_cache(maxsize=KEPT_SHARDS)(lambda shard: read_class_maps(member.folder, shard))
        self._reading = Lock()

    def maps(self, key: str, size: tuple[int, int]) -> ClassMaps:
        """The maps of a picture.

        Args:
            size: (H, W) in pixels.

        Raises:
            MissingMaps: it has none, or they are of a picture of another size.
            CorruptRunError: their file is missing or damaged.
        """
        known, run = self.known.get(key), self.member.run
        if known is None:
            reason = self._set_aside.get(key)
            why = "has set it aside" if reason else "does not know it"
            raise MissingMaps(f"run '{run}' of the ensemble {why}{': ' if reason else ''}{reason or ''}")
        if known.size != size:
            was, here = (f"{width}x{height}" for height, width in (known.size, size))
            raise MissingMaps(f"run '{run}' of the ensemble has another picture of that key, {was} pixels, not {here}")
        with self._reading:  # so that two threads do not read one file
            return self._of_shard(known.shard)[key]


def _known(member: Member) -> Iterator[tuple[str, Known]]:
    columns = ["key", "height", "width", "classes"]
    alike: dict[tuple[int, ...], tuple[int, ...]] = {}
    for shard in member.shards:
        for row in member.folder.read_table(shard, "parquet", columns).to_pylist():
            classes = tuple(row["classes"])
            yield row["key"], Known(shard, alike.setdefault(classes, classes), (row["height"], row["width"]))


@lru_cache(maxsize=2)
def open_runs(members: tuple[Member, ...]) -> tuple[StoredRun, ...]:
    """The stored maps of some runs; a process keeps what it knows of the last ones for planning and the next shard.

    Raises:
        CorruptRunError: a table is missing or damaged.
    """
    return tuple(StoredRun(member) for member in members)


def decide_as(member: Member, run: MaskConfig) -> MaskConfig:
    """What a member's scores are made by: its own settings; a background that followed the card follows the run's."""
    own = member.masks
    return own.model_copy(update={"background": run.background}) if own.background == "auto" else own


def scores_of(member: Member, run: MaskConfig, maps: ClassMaps, size: tuple[int, int]) -> Scores:
    """What a member's own method makes of its maps."""
    return method_of(member.method).decide(member.method, decide_as(member, run), maps, size)
