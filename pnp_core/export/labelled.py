"""The finished pictures of a run or a corpus, shard by shard, with their masks."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
from PIL import Image
from pyarrow import compute

from pnp_core.corpus.manifest import LABELLED, LATEST, read_pointer
from pnp_core.data import Sample, ShardRef, label_type, void_of
from pnp_core.errors import CorruptRunError, UsageError
from pnp_core.export.regions import Region, regions, unfit_pieces
from pnp_core.inputs.images import LABEL_MODES, encode_label_map, palette_of
from pnp_core.runs.record import RUN, RunRecord, read_record
from pnp_core.stages.masks import STAGE as MASKS
from pnp_core.storage.completion import StageFolder
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import INDEX, read_refs, read_shard

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True)
class Choice:
    """What of a run is exported.

    Attributes:
        floor: pixels whose confidence in [0, 1] is below it become void.
        min_area: connected pieces of a class with fewer pixels become void.
        min_confidence: so do those whose mean confidence in [0, 1] is below it.
        keys: of the pictures; None for all.
        without: keys of pictures that are left out, whatever `keys` says.
        instances: regions are the connected pieces of each class, not each class.
        val: share in (0, 1) of pictures that are set aside for validation; None for no such split.
    """

    floor: float | None = None
    min_area: int = 0
    min_confidence: float = 0.0
    keys: frozenset[str] | None = None
    instances: bool = False
    val: float | None = None
    without: frozenset[str] = frozenset()

    def has(self, key: str) -> bool:
        """Whether a picture is chosen."""
        return (self.keys is None or key in self.keys) and key not in self.without

    @property
    def by_confidence(self) -> bool:
        """Whether it needs the confidence of pixels."""
        return self.floor is not None or self.min_confidence > 0

    def split_of(self, key: str) -> Split:
        """Of a picture; its key alone says so, and a greater share only adds to a smaller one.

        >>> [Choice(val=0.5).split_of(key) for key in ("a", "b", "c")]
        ['train', 'val', 'val']
        """
        if self.val is None:
            return "train"
        return "val" if int(sha256(key.encode()).hexdigest()[:8], 16) < self.val * 2**32 else "train"


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
        classes: names, in their order.
        confidence: whether every mask has one.
        model: the weights, for people.
        palette: colours #rrggbb of background and the classes.
        missing: pictures without a mask.
        own_ids: labels of the classes in masks, where these are not 1, 2 ...
    """

    url: str
    parts: tuple[Part, ...]
    classes: tuple[str, ...]
    confidence: bool
    model: str
    palette: tuple[str, ...]
    missing: int = 0
    own_ids: tuple[int, ...] | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        """Labels of the classes in masks."""
        return self.own_ids or tuple(range(1, len(self.classes) + 1))

    @property
    def void(self) -> int:
        """Label of pixels that are not to be learned from: 255, of masks of 16 bits 65535."""
        return int(np.iinfo(self.label_type).max)

    @property
    def label_type(self) -> np.dtype[Any]:
        """Of the masks."""
        return label_type(max(self.ids))

    @cached_property
    def colours(self) -> np.ndarray:
        """Colours of the labels, (256 or 65536, 3) uint8."""
        colours = palette_of((), self.label_type)
        for label, (_, colour) in self.named.items():
            colours[label] = colour
        return colours

    @cached_property
    def named(self) -> dict[int, tuple[str, tuple[int, ...]]]:
        """By label name and red, green, blue, background first."""
        red_green_blue = [tuple(bytes.fromhex(colour[1:])) for colour in self.palette]
        named = zip(("background", *self.classes), red_green_blue, strict=True)
        return dict(zip((0, *self.ids), named, strict=True))

    @cached_property
    def places(self) -> dict[int, int]:
        """By label the place of its class from 1; 0 of background. The label itself where there are no own ids."""
        return {label: place for place, label in enumerate((0, *self.ids))}


@dataclass(frozen=True)
class Labelled:
    """A picture with its mask.

    Attributes:
        name: unique among all, safe in paths.
        source: where the picture is from.
        labels: (H, W) uint8, or uint16 of runs with more than 254 classes, or ids over 254; 0 background, 255 or
            65535 void.
        palette: (256 or 65536, 3) uint8.
        row: as in the masks' table.
        part: that it is of.
        below_floor: pixels that became void because of their confidence.
        dropped: pieces that became void because they are small or unsure.
        split: that it belongs to.
        instances: whether its regions are connected pieces.
    """

    name: str
    source: str
    sample: Sample
    labels: np.ndarray
    palette: np.ndarray
    row: dict[str, Any] = field(repr=False)
    part: Part = field(repr=False)
    below_floor: int = 0
    dropped: int = 0
    split: Split = "train"
    instances: bool = False

    @cached_property
    def classes(self) -> dict[int, int]:
        """Pixels by label, without background and void."""
        found, counts = np.unique(self.labels, return_counts=True)
        pixels = zip(found.tolist(), counts.tolist(), strict=True)
        return {label: number for label, number in pixels if label not in (0, self.void)}

    @cached_property
    def confidence(self) -> np.ndarray | None:
        """(H, W) uint8, probability of the winning label as 0..255; None where the run kept none."""
        return _confidence(self.row)

    def regions(self, instances: bool | None = None) -> Iterator[Region]:
        """Its regions: one for each class, or one for each connected piece of it.

        Args:
            instances: pieces or not; as it was asked for when None.
        """
        found = np.where(self.labels == self.void, 0, self.labels)
        return regions(found, self.confidence, self.instances if instances is None else instances)

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
    finished = Finished(url, tuple(parts), record.classes, confidence, _model(parts), record.palette, missing)
    if record.ids is None:
        return finished
    own = zip(record.classes, record.palette[1:], record.ids, strict=True)
    # Queries for background are no classes of masks.
    names, colours, ids = zip(*(one for one in own if one[2]), strict=True)
    own_ids = None if ids == tuple(range(1, len(ids) + 1)) else ids
    return replace(finished, classes=names, palette=(record.palette[0], *colours), own_ids=own_ids)


def _model(parts: list[Part]) -> str:
    """What made the masks, as their rows say."""
    for part in reversed(parts):
        rows = part.masks.read_table(part.shard.name, "parquet", ["model"])["model"]
        if len(rows):
            return rows[0].as_py()
    return ""


def labelled_images(finished: Finished, choice: Choice = Choice()) -> Iterator[Labelled]:
    """Every picture that has a mask and is chosen, by the shard."""
    names: set[str] = set()
    for part in finished.parts:
        rows = {row["key"]: row for row in part.masks.read_table(part.shard.name, "parquet").to_pylist()}
        for sample in read_shard(part.masks.run, part.shard):
            if row := rows.get(sample.key):
                sources = [sample.source] if part.sources is None else part.sources.get(sample.key, [])
                for source in sources:
                    # Whatever is chosen, a picture has the same name.
                    name = _unique(sample.key, names)
                    if choice.has(sample.key):
                        yield _labelled(name, source, sample, row, part, choice, finished.colours)


def require_keys(finished: Finished, keys: frozenset[str], file: str) -> None:
    """Find out whether all keys are of pictures with a mask.

    Args:
        file: that names them, for an error.

    Raises:
        UsageError: some are not.
    """
    unknown = set(keys)
    for part in finished.parts:
        there = part.masks.read_table(part.shard.name, "parquet", ["key"])["key"].to_pylist()
        known = set(there) if part.sources is None else set(there) & part.sources.keys()
        unknown -= known
    if unknown:
        some = ", ".join(f"'{key}'" for key in sorted(unknown)[:3])
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise UsageError(f"'{file}' names pictures that '{finished.url}' has no mask of: {some}{more}")


def _unique(key: str, taken: set[str]) -> str:
    """Keys are unique in a run; batches of a corpus, and equal files in it, may share one."""
    name, number = key, 1
    while name in taken:
        number += 1
        name = f"{key}-{number}"
    taken.add(name)
    return name


def _labelled(
    name: str, source: str, sample: Sample, row: dict[str, Any], part: Part, choice: Choice, colours: np.ndarray
) -> Labelled:
    labels, palette = _decode(row["mask"]["bytes"], colours)
    void = void_of(labels)
    below = dropped = 0
    confidence = _confidence(row) if choice.by_confidence else None
    if choice.floor is not None:
        assert confidence is not None  # asked for before
        unsure = confidence / np.float32(255) < choice.floor
        below = int((unsure & (labels != void)).sum())
        labels[unsure] = void
    if choice.min_area or choice.min_confidence:
        found = np.where(labels == void, 0, labels)
        where, dropped = unfit_pieces(found, confidence, choice.min_area, choice.min_confidence)
        labels[where] = void
    split = choice.split_of(sample.key)
    return Labelled(name, source, sample, labels, palette, row, part, below, dropped, split, choice.instances)


def _confidence(row: dict[str, Any]) -> np.ndarray | None:
    """As it is stored, 0..255."""
    if not row.get("confidence"):
        return None
    with Image.open(io.BytesIO(row["confidence"]["bytes"])) as image:
        return np.asarray(image)


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
