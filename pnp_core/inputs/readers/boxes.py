"""Image-level labels from detection annotations: VOC's XML files, COCO's JSON."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol, runtime_checkable

from pnp_core.errors import DatasetError, UsageError
from pnp_core.inputs.cards import DatasetCard
from pnp_core.inputs.readers._folder import DataFolder
from pnp_core.inputs.readers.base import GroundTruthError
from pnp_core.inputs.readers.instances import coco_id, load_coco
from pnp_core.inputs.sources.base import NotReadError


@runtime_checkable
class Boxes(Protocol):
    """Which classes have a box in a picture."""

    def classes(self, image_id: str) -> tuple[int, ...]:
        """Labels, sorted.

        Raises:
            GroundTruthError: no annotation, or one that cannot be read.
        """
        ...

    def stamp(self, image_id: str) -> str:
        """Changes when the picture's annotation changes on disk."""
        ...


@dataclass(frozen=True)
class VocBoxes:
    """One XML file per picture, as in VOCdevkit's Annotations; see `Boxes`."""

    folder: DataFolder
    card: DatasetCard
    template: str

    def classes(self, image_id: str) -> tuple[int, ...]:
        """Labels of the named objects, see `Boxes`."""
        path = self.template.replace("{id}", image_id)
        try:
            text = self.folder.file(path).read()
        except NotReadError as error:
            raise GroundTruthError(f"no image-level labels: '{path}' is missing") from error
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise GroundTruthError(f"'{path}' declares entities; refused")
        try:
            tree = ElementTree.fromstring(text)  # noqa: S314 - entities were refused above
        except ElementTree.ParseError as error:
            raise GroundTruthError(f"'{path}' is not XML: {error}") from error
        names = {(entry.findtext("name") or "").strip().lower() for entry in tree.iter("object")}
        unknown = sorted(names - self.card.label_of_name.keys())
        if unknown:
            raise GroundTruthError(f"'{path}' names unknown classes: {', '.join(unknown)}")
        return tuple(sorted(self.card.label_of_name[name] for name in names))

    def stamp(self, image_id: str) -> str:
        """Size and time of the file."""
        return self.folder.file(self.template.replace("{id}", image_id)).stamp()


@dataclass(frozen=True)
class CocoBoxes:
    """A COCO annotation file; see `Boxes`."""

    file: str
    file_stamp: str
    labels_of: dict[str, tuple[int, ...]]

    @classmethod
    def read(cls, folder: DataFolder, card: DatasetCard, file: str) -> CocoBoxes:
        """Read the whole file.

        Raises:
            DatasetError: it is missing, or not a COCO annotation file.
        """
        coco = load_coco(folder, file)
        labels_of = {}
        for image in coco.dataset["images"]:
            numbers = {a["category_id"] for a in coco.imgToAnns.get(image["id"], [])}
            labels = {card.label_of[n] for n in numbers if n in card.label_of}
            labels_of[coco_id(image["file_name"])] = tuple(sorted(labels))
        return cls(file, folder.file(file).stamp(), labels_of)

    def classes(self, image_id: str) -> tuple[int, ...]:
        """Labels of the annotated categories, see `Boxes`."""
        if image_id not in self.labels_of:
            raise GroundTruthError(f"no image-level labels: '{self.file}' has no entry for picture {image_id}")
        return self.labels_of[image_id]

    def stamp(self, image_id: str) -> str:
        """Of the whole file."""
        return self.file_stamp


def boxes_place(card: DatasetCard, split: str) -> str:
    """File or folder that holds a dataset's boxes, relative to the data folder.

    Raises:
        UsageError: the dataset has none.
    """
    if card.boxes is None:
        raise UsageError(f"dataset {card.name} has no boxes; use image-level labels from masks")
    path = card.boxes.path.replace("{split}", split)
    return path if card.boxes.kind == "coco-json" else str(PurePosixPath(path).parent)


def open_boxes(folder: DataFolder, card: DatasetCard, split: str) -> Boxes:
    """The dataset's detection annotations.

    Raises:
        UsageError: the dataset has none.
        DatasetError: they are not on disk.
    """
    relative = boxes_place(card, split)
    assert card.boxes is not None
    path = card.boxes.path.replace("{split}", split)
    if not folder.exists(relative):
        raise DatasetError(f"the boxes of {card.name} are missing: no '{folder.path(relative)}'{folder.advice()}")
    return CocoBoxes.read(folder, card, path) if card.boxes.kind == "coco-json" else VocBoxes(folder, card, path)
