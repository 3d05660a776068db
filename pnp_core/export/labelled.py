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
from pyarrow import compute

from pnp_core.corpus.manifest import LABELLED, LATEST, read_pointer
from pnp_core.data import Sample, ShardRef, label_type, void_of
from pnp_core.errors import CorruptRunError
from pnp_core.inputs.images import LABEL_MODES, encode_label_map, palette_of
from pnp_core.runs.record import RUN, RunRecord, read_record
from pnp_core.stages.masks import STAGE as MASKS
from pnp_core.storage.completion import StageFolder
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import INDEX, read_refs, read_shard


@dataclass(frozen=True)
class Part:
    """A shard of a run folder and its masks.

    Attributes:
        sources: of a corpus: for each key that counts the files that are this picture; None for all, by their names.
    """

    shard: ShardRef
    masks: StageFolder
    sources: dict[str, list[str]] | None = None


@dataclass(frozen=True)
class Finished:
    """Everything there is to export.

    Attributes:
        classes: names of the labels 1, 2 ...
        confidence: whether every mask has one.
        model: the weights, for people.
        palette: colours #rrggbb of the labels 0, 1 ...
        missing: pictures without a mask.
    """

    url: str
    parts: tuple[Part, ...]
    classes: tuple[str, ...]
    confidence: bool
    model: str
    palette: tuple[str, ...]
    missing: int = 0

    @property
    def void(self) -> int:
        """Label of pixels that are not to be learned from: 255, of masks of 16 bits 65535."""
        return int(np.iinfo(self.label_type).max)

    @property
    def label_type(self) -> np.dtype[Any]:
        """Of the masks."""
        return label_type(len(self.classes))

    @cached_property
    def colours(self) -> np.ndarray:
        """Colours of the labels, (256 or 65536, 3) uint8."""
        return palette_of(self.palette, self.label_type)

    @property
    def named_colours(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and red, green, blue of the labels 0, 1 ..., background first."""
        red_green_blue = [tuple(bytes.fromhex(colour[1:])) for colour in self.palette]
        return list(zip(("background", *self.classes), red_green_blue, strict=True))


@dataclass(frozen=True)
class Labelled:
    """A picture with its mask.

    Attributes:
        name: unique among all, safe in paths.
        source: where the picture is from.
        labels: (H, W) uint8 or uint16, 0 background, 255 or 65535 void.
        palette: (256 or 65536, 3) uint8.
        row: as in the masks' table.
        below_floor: pixels that became void.
    """

    name: str
    source: str
    sample: Sample
    labels: np.ndarray
    palette: np.ndarray
    row: dict[str, Any] = field(repr=False)
    below_floor: int = 0

    @cached_property
    def classes(self) -> dict[int, int]:
        """Pixels by label, without background and void."""
        counts = np.bincount(self.labels.ravel())
        return {int(n): int(counts[n]) for n in np.flatnonzero(counts) if n not in (0, self.void)}

    @property
    def void(self) -> int:
        """Label of pixels that are not to be learned from: 255, of 16 bits 65535."""
        return void_of(self.labels)

    @property
    def mask_png(self) -> bytes:
        """The mask as a palette PNG, of 16 bits a grey one."""
        return encode_label_map(self.labels, self.palette)


def open_finished(url: str) -> Finished:
    """A finished run, or what a corpus has published last.

    Raises:
        CorruptRunError: neither is there, or its record is damaged; or another run has begun in the folder and is not
            finished.
    """
    folder = RunFolder(url)
    if folder.exists(LATEST):
        return _of_corpus(url, folder)
    record = read_record(folder)
    if not record or not folder.exists(INDEX):
        raise CorruptRunError(f"'{url}' holds no finished run of eval or label, and no corpus")
    shards = read_refs(folder)
    images, labelled = record.summary.images, record.summary.labelled
    masks = StageFolder(folder, MASKS, record.fingerprints.masks)
    made = {shard: done.done for shard in shards if (done := masks.record(shard.name))}
    if (sum(shard.samples for shard in shards), sum(made.values())) != (images, labelled):
        raise CorruptRunError(f"the run in '{url}' is not finished, or damaged; run its command again")
    parts = [Part(shard, masks) for shard in made]
    return _finished(url, parts, record, images - labelled)


def _of_corpus(url: str, folder: RunFolder) -> Finished:
    pointer = read_pointer(folder, LATEST)
    assert pointer
    table = folder.read_table(pointer["manifest"], ["source", "status", "masks", "key"])
    labelled = table.filter(compute.field("status") == LABELLED)
    sources: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for masks, key, source in zip(*(labelled[name].to_pylist() for name in ("masks", "key", "source")), strict=True):
        sources[masks][key].append(source)
    parts, batches = [], {}
    for file in sorted(sources):
        path = PurePosixPath(file)
        batch = str(PurePosixPath(*path.parts[:2]))
        if batch not in batches:
            run = RunFolder(f"{url.rstrip('/')}/{batch}")
            batches[batch] = run, {shard.name: shard for shard in read_refs(run)}
        run, shards = batches[batch]
        parts.append(Part(shards[path.stem], StageFolder(run, *path.parts[2:4]), sources[file]))
    if not parts:
        raise CorruptRunError(f"the corpus in '{url}' has no labelled picture")
    record = read_record(parts[-1].masks.run)
    if record is None:
        raise CorruptRunError(f"'{parts[-1].masks.run.path(RUN)}' is missing; restore it, or label the corpus anew")
    return _finished(url, parts, record, len(table) - len(labelled))


def _finished(url: str, parts: list[Part], record: RunRecord, missing: int) -> Finished:
    confidence = record.config.masks.confidence
    return Finished(url, tuple(parts), record.classes, confidence, _model(parts), record.palette, missing)


def _model(parts: list[Part]) -> str:
    """What made the masks, as their rows say."""
    for part in reversed(parts):
        rows = part.masks.read_table(part.shard.name, "parquet", ["model"])["model"]
        if len(rows):
            return rows[0].as_py()
    return ""


def labelled_images(finished: Finished, floor: float | None = None) -> Iterator[Labelled]:
    """Every picture that has a mask, by the shard.

    Args:
        floor: pixels whose confidence in [0, 1] is below it become void.
    """
    names: set[str] = set()
    for part in finished.parts:
        rows = {row["key"]: row for row in part.masks.read_table(part.shard.name, "parquet").to_pylist()}
        for sample in read_shard(part.masks.run, part.shard):
            if row := rows.get(sample.key):
                sources = [sample.source] if part.sources is None else part.sources.get(sample.key, [])
                for source in sources:
                    yield _labelled(_unique(sample.key, names), source, sample, row, floor, finished.colours)


def _unique(key: str, taken: set[str]) -> str:
    """Keys are unique in a run; batches of a corpus, and equal files in it, may share one."""
    name, number = key, 1
    while name in taken:
        number += 1
        name = f"{key}-{number}"
    taken.add(name)
    return name


def _labelled(
    name: str, source: str, sample: Sample, row: dict[str, Any], floor: float | None, colours: np.ndarray
) -> Labelled:
    labels, palette = _decode(row["mask"]["bytes"], colours)
    below = 0
    if floor is not None:
        with Image.open(io.BytesIO(row["confidence"]["bytes"])) as image:
            unsure = np.asarray(image) / np.float32(255) < floor
        below = int((unsure & (labels != void_of(labels))).sum())
        labels[unsure] = void_of(labels)
    return Labelled(name, source, sample, labels, palette, row, below)


def _decode(png: bytes, wide: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and palette of a mask.

    Args:
        wide: palette of masks of 16 bits, whose files have none.
    """
    with Image.open(io.BytesIO(png)) as image:
        if LABEL_MODES[image.mode] == np.uint16:
            return np.array(image), wide
        palette = np.zeros((256, 3), np.uint8)
        colours = np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)
        palette[: len(colours)] = colours
        return np.array(image, dtype=np.uint8), palette
