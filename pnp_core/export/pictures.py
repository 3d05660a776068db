"""The finished pictures of a run or a corpus, shard by shard, with their masks."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from pnp_core.corpus.manifest import LABELLED, LATEST, read_pointer
from pnp_core.errors import CorruptRunError
from pnp_core.finish import RUN
from pnp_core.images import encode_label_map
from pnp_core.records import IGNORE, Sample, ShardRef
from pnp_core.shards import INDEX, read_shard
from pnp_core.store import RunFolder


@dataclass(frozen=True)
class Part:
    """A shard of a run folder and its masks; `keys` of those that count, None for all."""

    run: RunFolder
    shard: ShardRef
    masks: str
    keys: frozenset[str] | None = None


@dataclass(frozen=True)
class Finished:
    """Everything there is to export.

    Attributes:
        classes: names of the labels 1, 2 ...
        confidence: whether every mask has one.
        model: the weights, for people.
    """

    url: str
    parts: tuple[Part, ...]
    classes: tuple[str, ...]
    confidence: bool
    model: str


@dataclass(frozen=True)
class Labelled:
    """A picture with its mask.

    Attributes:
        name: unique among all, safe in paths.
        labels: (H, W) uint8, 0 background, 255 void.
        palette: (256, 3) uint8.
        row: as in the masks' table.
        below_floor: pixels that became void.
    """

    name: str
    sample: Sample
    labels: np.ndarray
    palette: np.ndarray
    row: dict[str, Any] = field(repr=False)
    below_floor: int = 0

    @cached_property
    def classes(self) -> dict[int, int]:
        """Pixels by label, without background and void."""
        counts = np.bincount(self.labels.ravel(), minlength=IGNORE + 1)
        return {label: int(counts[label]) for label in range(1, IGNORE) if counts[label]}

    @property
    def mask_png(self) -> bytes:
        """The mask as a palette PNG."""
        return encode_label_map(self.labels, self.palette)


def open_finished(url: str) -> Finished:
    """A finished run, or what a corpus has published last.

    Raises:
        CorruptRunError: neither is there.
    """
    folder = RunFolder(url)
    if folder.exists(LATEST):
        return _of_corpus(url, folder)
    record = folder.read_json(RUN)
    if not record or not folder.exists(INDEX):
        raise CorruptRunError(f"'{url}' holds no finished run of eval or label, and no corpus")
    place = f"masks/{record['fingerprints']['masks']}"
    parts = [Part(folder, shard, f"{place}/{shard.name}.parquet") for shard in _shards(folder)]
    return _finished(url, [part for part in parts if folder.exists(part.masks)], record)


def _of_corpus(url: str, folder: RunFolder) -> Finished:
    pointer = read_pointer(folder, LATEST)
    assert pointer
    table = folder.read_table(pointer["manifest"], ["status", "masks", "key"])
    keys: dict[str, set[str]] = defaultdict(set)
    for row in table.to_pylist():
        if row["status"] == LABELLED:
            keys[row["masks"]].add(row["key"])
    parts, batches = [], {}
    for file in sorted(keys):
        path = PurePosixPath(file)
        batch = str(PurePosixPath(*path.parts[:2]))
        if batch not in batches:
            run = RunFolder(f"{url.rstrip('/')}/{batch}")
            batches[batch] = run, {shard.name: shard for shard in _shards(run)}
        run, shards = batches[batch]
        parts.append(Part(run, shards[path.stem], str(path.relative_to(batch)), frozenset(keys[file])))
    if not parts:
        raise CorruptRunError(f"the corpus in '{url}' has no labelled picture")
    return _finished(url, parts, parts[-1].run.read_json(RUN))


def _shards(run: RunFolder) -> list[ShardRef]:
    rows = run.read_table(INDEX).to_pylist()
    return [ShardRef(r["shard"], r["samples"], r["bytes"], r["sha256"]) for r in rows]


def _finished(url: str, parts: list[Part], record: dict[str, Any]) -> Finished:
    backbone = record["config"]["salience"]["backbone"]
    model = f"{backbone['name']}:{backbone['checkpoint']}@{record['weights_revision']}"
    confidence = bool(record["config"]["masks"]["confidence"])
    return Finished(url, tuple(parts), tuple(record["classes"]), confidence, model)


def labelled_pictures(finished: Finished, floor: float | None = None) -> Iterator[Labelled]:
    """Every picture that has a mask, by the shard.

    Args:
        floor: pixels whose confidence in [0, 1] is below it become void.
    """
    names: set[str] = set()
    for part in finished.parts:
        rows = {row["key"]: row for row in part.run.read_table(part.masks).to_pylist()}
        for sample in read_shard(part.run, part.shard):
            row = rows.get(sample.key)
            if row and (part.keys is None or sample.key in part.keys):
                yield _labelled(_unique(sample.key, names), sample, row, floor)


def _unique(key: str, taken: set[str]) -> str:
    """Keys are unique in a run; batches of a corpus may share one."""
    name, number = key, 1
    while name in taken:
        number += 1
        name = f"{key}-{number}"
    taken.add(name)
    return name


def _labelled(name: str, sample: Sample, row: dict[str, Any], floor: float | None) -> Labelled:
    labels, palette = _decode(row["mask"]["bytes"])
    below = 0
    if floor is not None:
        with Image.open(io.BytesIO(row["confidence"]["bytes"])) as image:
            unsure = np.asarray(image) / np.float32(255) < floor
        below = int((unsure & (labels != IGNORE)).sum())
        labels[unsure] = IGNORE
    return Labelled(name, sample, labels, palette, row, below)


def _decode(png: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Labels and palette of a mask."""
    with Image.open(io.BytesIO(png)) as image:
        palette = np.zeros((256, 3), np.uint8)
        colours = np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)
        palette[: len(colours)] = colours
        return np.array(image, dtype=np.uint8), palette
