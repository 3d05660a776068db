"""Finished runs side by side: which pictures they share, and what each has of them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from pnp_core.corpus.manifest import LATEST
from pnp_core.data import Sample
from pnp_core.errors import CorruptRunError, UsageError
from pnp_core.export.labelled import Finished, Part, open_finished, void_of
from pnp_core.inputs.images import decode_label_map
from pnp_core.report.palette import display_palette
from pnp_core.runs.record import RUN, RunRecord, read_record
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.seals import sha256
from pnp_core.storage.shards import read_shard
from pnp_core.text.paths import shortest_names

VOID = 65535
"""Of label maps over the classes of all runs: belongs to nothing."""
BACKGROUND = "background"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NAMED = 20
"""Pictures that are not compared are named up to so many."""
_ROW = ["key", "source", "height", "width", "mask", "mean_confidence"]
_KEPT_SHARDS = 2
"""Shards of a run that stay in memory: the other runs may be cut otherwise."""


@dataclass(frozen=True)
class Classes:
    """The classes of several runs, matched by name.

    Attributes:
        names: of the labels 0, 1 ...; background first.
        colours: (labels, 3) uint8, for people's eyes.
    """

    names: tuple[str, ...]
    colours: np.ndarray

    @classmethod
    def of(cls, runs: Sequence[Finished]) -> Classes:
        """The classes of all, those of the first run first."""
        names = dict.fromkeys(name for run in runs for name in (BACKGROUND, *run.classes))
        return cls(tuple(names), display_palette(np.dtype(np.uint16))[: len(names)])

    def table(self, names: Sequence[str], values: Sequence[int] | None = None) -> np.ndarray:
        """(65536,) uint16: for each value of a label map, whose classes are these, the label here.

        Args:
            values: of the classes; 1, 2 ... when None.
        """
        place = {name: label for label, name in enumerate(self.names)}
        table = np.full(VOID + 1, VOID, np.uint16)
        table[0] = place[BACKGROUND]
        table[list(values or range(1, len(names) + 1))] = [place[name] for name in names]
        return table


class ReadRun:
    """A finished run, read by the shard.

    Attributes:
        letter: that stands for it in the page.
        name: the shortest end of its path that tells it from the others.
    """

    def __init__(self, url: str, letter: str, name: str) -> None:
        """Read its record and the keys of its pictures.

        Raises:
            UsageError: it is a corpus.
            CorruptRunError: it is not finished, or damaged.
        """
        self.url, self.letter, self.name = url, letter, name
        self.folder = RunFolder(url)
        if self.folder.exists(LATEST):
            raise UsageError(f"'{url}' is a corpus: compare its batches, which are runs, in {url.rstrip('/')}/batches/")
        self.finished = open_finished(url)
        record = read_record(self.folder)
        if record is None:
            raise CorruptRunError(f"'{self.folder.path(RUN)}' is missing; run the command that made it again")
        self.record: RunRecord = record
        self.parts = self.finished.parts
        self.part_of: dict[str, int] = {}
        for number, part in enumerate(self.parts):
            keys = part.masks.read_table(part.shard.name, "parquet", ["key"])["key"].to_pylist()
            self.part_of |= dict.fromkeys(keys, number)
        self._rows_of_part = lru_cache(maxsize=_KEPT_SHARDS)(self._read_rows)
        self._digests_of_part = lru_cache(maxsize=_KEPT_SHARDS)(self._read_digests)

    def rows(self, keys: Collection[str]) -> dict[str, dict[str, Any]]:
        """The rows of some pictures in the masks' table, by key."""
        return self._by_part(keys, self._rows_of_part)

    def digests(self, keys: Collection[str]) -> dict[str, str]:
        """Digests of some pictures' files, by key."""
        return self._by_part(keys, self._digests_of_part)

    def samples(self, part: Part, keys: Collection[str]) -> Iterator[Sample]:
        """Some pictures of a part, one after the other."""
        return (sample for sample in read_shard(self.folder, part.shard) if sample.key in keys)

    def truths(self, keys: Collection[str]) -> dict[str, bytes]:
        """The ground truth of some pictures, where there is some, by key."""
        found = {}
        for number in sorted({self.part_of[key] for key in keys}):
            for sample in self.samples(self.parts[number], keys):
                if sample.label_map is not None:
                    found[sample.key] = sample.label_map
        return found

    def _by_part(self, keys: Collection[str], read: Any) -> dict[str, Any]:
        found = {}
        for number in sorted({self.part_of[key] for key in keys}):
            rows = read(number)
            found |= {key: rows[key] for key in keys if self.part_of[key] == number}
        return found

    def _read_rows(self, number: int) -> dict[str, dict[str, Any]]:
        part = self.parts[number]
        return {row["key"]: row for row in part.masks.read_table(part.shard.name, "parquet", _ROW).to_pylist()}

    def _read_digests(self, number: int) -> dict[str, str]:
        return {sample.key: sha256(sample.image) for sample in read_shard(self.folder, self.parts[number].shard)}


@dataclass
class Left:
    """Pictures that are not compared.

    Attributes:
        number: how many.
        some: names of the first ones.
    """

    number: int = 0
    some: list[str] = field(default_factory=list)

    def add(self, key: str) -> None:
        """Count one."""
        self.number += 1
        if len(self.some) < NAMED:
            self.some.append(key)


@dataclass(frozen=True)
class Shared:
    """A picture that all runs have.

    Attributes:
        maps: (H, W) uint16 of each run, labels of `Classes`.
        truth: the same of the ground truth, None where there is none.
        confidence: mean over the pixels, of each run.
    """

    key: str
    source: str
    maps: tuple[np.ndarray, ...]
    truth: np.ndarray | None
    confidence: tuple[float, ...]

    @property
    def differ(self) -> np.ndarray:
        """(H, W) bool: pixels that not all runs give the same class."""
        return np.any([one != self.maps[0] for one in self.maps[1:]], axis=0)


@dataclass(frozen=True)
class Pairing:
    """Runs whose pictures are compared by key.

    Attributes:
        with_truth: the run whose ground truth all are measured by; None where no run has some.
        apart: per run its pictures that not all others have.
        unlike: pictures of one key that are not the same in all runs: of another size, or another file.
    """

    runs: tuple[ReadRun, ...]
    classes: Classes
    with_truth: ReadRun | None
    apart: tuple[Left, ...]
    unlike: Left

    def keys(self, part: Part) -> list[str]:
        """Keys of a part of the first run that all runs have, in its order."""
        rows = part.masks.read_table(part.shard.name, "parquet", ["key"])["key"].to_pylist()
        return [key for key in rows if all(key in run.part_of for run in self.runs[1:])]

    def shared(self, part: Part, keys: Collection[str]) -> Iterator[Shared]:
        """Some pictures of a part of the first run, as all runs have them; those that are not the same are left out."""
        rows = [run.rows(keys) for run in self.runs]
        others = self._others(part, keys)
        truths = self.with_truth.truths(keys) if self.with_truth else {}
        tables = [self.classes.table(run.finished.classes, run.finished.ids) for run in self.runs]
        for key in keys:
            own = [found[key] for found in rows]
            if key in others or len({(row["height"], row["width"]) for row in own}) > 1:
                continue
            maps = [decode_label_map(row["mask"]["bytes"]) for row in own]
            truth = self._truth(truths[key]) if key in truths else None
            yield Shared(
                key,
                own[0]["source"],
                tuple(_renumbered(labels, table) for labels, table in zip(maps, tables, strict=True)),
                truth if truth is not None and truth.shape == maps[0].shape else None,
                tuple(row["mean_confidence"] for row in own),
            )

    def _others(self, part: Part, keys: Collection[str]) -> set[str]:
        """Keys that are of different files; nothing is read of shards that are the same bytes."""
        doubtful = {
            run: [key for key in keys if run.parts[run.part_of[key]].shard.sha256 != part.shard.sha256]
            for run in self.runs[1:]
        }
        found: set[str] = set()
        for run, own in doubtful.items():
            here, there = self.runs[0].digests(own), run.digests(own)
            found |= {key for key in own if here[key] != there[key]}
        return found

    def _truth(self, data: bytes) -> np.ndarray:
        assert self.with_truth
        truth = decode_label_map(data)
        found = _renumbered(truth, self.classes.table(self.with_truth.finished.classes))
        if (self.with_truth.record.config.model_extra or {}).get("score", {}).get("void_as_background"):
            found[found == VOID] = 0
        return found


def _renumbered(labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    found = table[labels]
    found[labels == void_of(labels)] = VOID
    return found


def pair_runs(urls: Sequence[str]) -> Pairing:
    """Open finished runs to compare.

    Args:
        urls: run folders, each a path or any fsspec URL.

    Raises:
        UsageError: fewer than two, one twice, or they have no picture in common.
        CorruptRunError: one is not finished, or damaged.
    """
    _check(urls)
    named = zip(urls, LETTERS, shortest_names(urls), strict=False)
    runs = tuple(ReadRun(*one) for one in named)
    common = set(runs[0].part_of).intersection(*(run.part_of for run in runs[1:]))
    if not common:
        firsts = [next(iter(run.part_of), "none") for run in runs[:2]]
        raise UsageError(
            f"the runs have no picture in common: keys are '{firsts[0]}' ... in '{runs[0].url}' and '{firsts[1]}' ... "
            f"in '{runs[1].url}'; compare runs of the same pictures"
        )
    apart = tuple(_apart(run, common) for run in runs)
    with_truth = next((run for run in runs if run.record.evaluation), None)
    return Pairing(runs, Classes.of([run.finished for run in runs]), with_truth, apart, Left())


def _check(urls: Sequence[str]) -> None:
    if len(urls) < 2:
        raise UsageError("there is nothing to compare with: name two run folders or more")
    if len(urls) > len(LETTERS):
        raise UsageError(f"{len(urls)} runs are too many for one page; compare {len(LETTERS)} at most")
    places = [_place(url) for url in urls]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UsageError(f"run folder '{urls[number]}' is named twice")


def _place(url: str) -> str:
    """Where a folder is, whatever it is called."""
    folder = RunFolder(url)
    return os.path.realpath(folder.root) if folder.local else folder.url.rstrip("/")


def _apart(run: ReadRun, common: set[str]) -> Left:
    left = Left()
    for key in run.part_of:
        if key not in common:
            left.add(key)
    return left
