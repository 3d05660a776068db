"""Datasets that lie on disk: pictures and ground truth by path templates."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from pnp_core.data import Sample, void_of
from pnp_core.errors import DatasetError
from pnp_core.inputs.cards import DatasetCard
from pnp_core.inputs.ordered import map_ahead
from pnp_core.inputs.readers._folder import DataFolder
from pnp_core.inputs.readers._truths import choose_truth
from pnp_core.inputs.readers.base import GroundTruthError, Truth, labelled_sample
from pnp_core.inputs.readers.boxes import Boxes
from pnp_core.inputs.sources import printable, safe_key, shuffle
from pnp_core.inputs.sources.base import NotReadError
from pnp_core.storage.first_bytes import FORMATS
from pnp_core.storage.run_folder import fingerprint


@dataclass(frozen=True)
class ImageFiles:
    """The picture file of each id."""

    folder: DataFolder
    template: str

    @classmethod
    def find(cls, folder: DataFolder, card: DatasetCard, split: str) -> ImageFiles:
        """The first of the card's places that exists.

        Raises:
            DatasetError: none does.
        """
        templates = [template.replace("{split}", split) for template in card.images]
        for template in templates:
            if folder.exists(str(PurePosixPath(template).parent)):
                return cls(folder, template)
        places = " or ".join(f"'{folder.path(str(PurePosixPath(t).parent))}'" for t in templates)
        raise DatasetError(f"the pictures of {card.name} are missing: no folder {places}{folder.advice()}")

    @cached_property
    def _there(self) -> dict[str, str]:
        return self.folder.matching(self.template)

    def ids(self) -> set[str]:
        """Ids of all pictures that are there."""
        return set(self._there)

    def there(self, image_id: str) -> str:
        """The id under which a picture is among `ids`: annotation files may name its folder too."""
        if image_id in self._there:
            return image_id
        name = image_id.rpartition("/")[2]
        return name if self._there.get(name) == self.path(image_id) else image_id

    def path(self, image_id: str) -> str:
        """Path of a picture, relative to the data folder, whether or not it is there."""
        named = self.template.replace("{id}", image_id)
        if self.template.endswith("*"):
            return self._there.get(image_id, named)
        folder, _, name = image_id.rpartition("/")
        # Some files name pictures from further up: train2017/1.jpg lies at images/train2017/1.jpg.
        plain = self.template.replace("{id}", name)
        above = folder and not self.folder.exists(str(PurePosixPath(named).parent)) and self.folder.exists(plain)
        return plain if above else named


def _look(image: bytes) -> tuple[tuple[int, int] | None, int]:
    """Height and width as stored, and EXIF orientation; no size when that is for the decoder to refuse."""
    try:
        with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
            return (opened.height, opened.width), opened.getexif().get(0x0112, 1)
    except Exception:  # Pillow raises nearly any type on hostile bytes
        return None, 1


def _check_truth(labels: np.ndarray, image: bytes) -> None:
    """Refuse ground truth that does not fit the picture or has nothing to score.

    Raises:
        GroundTruthError: with the reason.
    """
    height, width = labels.shape
    size, orientation = _look(image)
    if orientation != 1:
        raise GroundTruthError(
            f"the picture is to be turned (EXIF orientation {orientation}), and nobody knows whether its ground "
            f"truth is; store it upright, without that tag"
        )
    if size is not None and size != (height, width):
        raise GroundTruthError(
            f"ground truth is {width}x{height} pixels, the picture {size[1]}x{size[0]}: they must be equal"
        )
    if (labels == void_of(labels)).all():
        raise GroundTruthError("ground truth has no labelled pixel: every one is void")


@dataclass(frozen=True)
class FileDataset:
    """A split of a dataset on disk; a `Dataset`."""

    card: DatasetCard
    folder: DataFolder
    split: str
    truth: Truth | None
    """None when ground truth is not to be read."""
    boxes: Boxes | None
    images: ImageFiles
    ids: tuple[str, ...]
    only: tuple[int, ...] | None = field(default=None)

    @property
    def identity(self) -> str:
        """What the pictures are."""
        truth = f", ground truth {self.truth.name}" if self.truth else ""
        return f"dataset {self.card.name}, split {self.split}{truth}"

    def shuffled(self, seed: int) -> FileDataset:
        """The same pictures in a random order."""
        return replace(self, ids=tuple(shuffle(self.ids, seed)))

    def restricted(self, keys: Collection[str]) -> FileDataset:
        """The pictures with some keys."""
        return replace(self, ids=tuple(i for i in self.ids if safe_key(i) in keys))

    def with_truth(self, ground_truth: str | None = None) -> FileDataset:
        """The same pictures with their masks, see `Dataset`."""
        masks = choose_truth(self.folder, self.card, self.card.folder_of(self.split), ground_truth)
        masks.ids()  # loads what the threads of `samples` share
        return replace(self, truth=masks)

    def unlisted(self) -> list[str]:
        """From the names in the folder of pictures."""
        return sorted(self.images.ids() - {self.images.there(image_id) for image_id in self.ids})

    def __len__(self) -> int:
        return len(self.ids)

    def digest(self, limit: int | None) -> str:
        """From the card, the subset, and size and time of each file."""
        digest = hashlib.sha256()
        # Where a class subset leaves pictures out, the limit does not say how far is read.
        for image_id in self.ids if self.only is not None else self.ids[:limit]:
            stamps = [self.folder.file(self.images.path(image_id)).stamp()]
            stamps += [labels.stamp(image_id) for labels in (self.truth, self.boxes) if labels]
            digest.update("\0".join([image_id, *stamps]).encode() + b"\n")
        truth = self.truth and self.truth.name
        return fingerprint(self.card.facts(), self.split, truth, limit, self.only, digest.hexdigest())

    def samples(self) -> Iterator[Sample]:
        """The pictures in order, read a few ahead on threads."""
        return (sample for sample in map_ahead(self.read, self.ids) if sample is not None)

    def read(self, image_id: str) -> Sample | None:
        """One picture; None when a class subset has nothing in it."""
        path = self.images.path(image_id)
        extension = PurePosixPath(path).suffix.lstrip(".").lower()
        ending = extension if extension.isalnum() else "bin"
        empty = Sample(safe_key(image_id), b"", ending, printable(path), name=printable(image_id))
        if image_id.startswith("/") or ".." in re.split(r"[/\\]", image_id):
            return replace(empty, fault=f"refused: the id '{printable(image_id)}' leaves the data folder")
        try:
            image = self.folder.file(path).read()
        except NotReadError as error:
            return replace(empty, fault=f"picture '{path}' {error}")
        try:
            labels = self.truth.labels(image_id) if self.truth else None
            if labels is not None:
                _check_truth(labels, image)
            classes = self.boxes.classes(image_id) if self.boxes else None
        except GroundTruthError as error:
            return replace(empty, fault=str(error))
        notes = self.truth.remarks(image_id) if self.truth else ()
        sample = replace(empty, image=image, classes=classes, notes=notes)
        return labelled_sample(sample, labels, self.only, self.card.background)
