"""Readers of the official layouts: a dataset card and a folder to pictures with ground truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pnp_core.errors import ClassNameError, DatasetError, UnknownNameError, UsageError
from pnp_core.inputs.cards import DatasetCard, DrawnScenes, GroundTruth, InstanceFile, LabelMapFiles, Split
from pnp_core.inputs.class_names import clean_class_names
from pnp_core.inputs.readers.base import Dataset, Truth
from pnp_core.inputs.readers.boxes import boxes_place, open_boxes
from pnp_core.inputs.readers.files import FileDataset, ImageFiles
from pnp_core.inputs.readers.folder import DataFolder
from pnp_core.inputs.readers.instances import InstanceTruth
from pnp_core.inputs.readers.label_maps import LabelMapTruth
from pnp_core.inputs.readers.scenes import SceneDataset

__all__ = ["Dataset", "get_split", "has_boxes", "open_dataset", "resolve_card", "with_truth"]


def get_split(card: DatasetCard, name: str | None) -> tuple[str, Split]:
    """A split by name, or the card's default one.

    Raises:
        UnknownNameError: the dataset has no such split.
    """
    name = name or card.default_split
    if name not in card.splits:
        raise UnknownNameError(f"split of dataset {card.name}", name, card.splits)
    return name, card.splits[name]


def resolve_card(card: DatasetCard, data: str | None) -> DatasetCard:
    """The card with its class names, which some datasets keep in a file of their own.

    Raises:
        UsageError: the dataset needs a folder and none is given, or one is given for nothing.
        DatasetError: the folder or the file of class names is missing.
    """
    drawn = isinstance(card.ground_truth[0], DrawnScenes)
    if drawn and data is not None:
        raise UsageError(f"dataset {card.name} is drawn, not read; leave out --data")
    if not drawn and data is None:
        raise UsageError(f"dataset {card.name} is read from disk; say where with --data ({card.root})")
    if card.classes_file is None:
        return card
    folder = DataFolder(data or "", card)
    lines = folder.read_text(card.classes_file).splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise DatasetError(f"'{folder.path(card.classes_file)}' names no class; it needs one name per line")
    try:
        return card.with_classes(tuple(clean_class_names(names)))
    except ClassNameError as error:
        raise DatasetError(f"'{folder.path(card.classes_file)}': {error}") from error


def _open_truth(folder: DataFolder, card: DatasetCard, form: GroundTruth, split: str) -> Truth:
    if isinstance(form, InstanceFile):
        return InstanceTruth(folder, card, split, form)
    assert isinstance(form, LabelMapFiles)
    return LabelMapTruth(folder, card, split, form)


def _choose_truth(folder: DataFolder, card: DatasetCard, split: str, wanted: str | None) -> Truth:
    """The ground truth asked for, or the first form that is on disk."""
    names = [form.name for form in card.ground_truth]
    if wanted is not None and wanted not in names:
        raise UnknownNameError(f"ground truth of dataset {card.name}", wanted, names)
    truths = [_open_truth(folder, card, form, split) for form in card.ground_truth if wanted in (None, form.name)]
    found = next((truth for truth in truths if truth.present()), None)
    if found is None:
        places = " or ".join(f"'{folder.path(truth.place)}'" for truth in truths)
        raise DatasetError(f"no ground truth of {card.name}: {places} is missing{folder.advice()}")
    return found


def open_dataset(
    card: DatasetCard,
    data: str | None,
    split: str | None = None,
    ground_truth: str | None = None,
    image_labels: Literal["masks", "boxes", "none"] = "masks",
    only: tuple[int, ...] | None = None,
    truth: bool = True,
) -> Dataset:
    """List a dataset's split; pictures are read when `samples` is iterated.

    Args:
        card: with its classes, see `resolve_card`.
        data: folder of the dataset as distributed, a path or any fsspec URL.
        ground_truth: which of the card's forms; the first on disk when None.
        image_labels: where image-level labels come from; `none` opens no boxes, whether or not masks are read.
        only: labels to keep; other classes count as background, or are not scored where background is none.
        truth: False leaves masks unopened, whether or not they are there; pictures without a list are then
            those of the folder, and `image_labels` from masks are unknown.

    Raises:
        UsageError: no such split, ground truth or boxes.
        DatasetError: files are missing.
    """
    name, part = get_split(card, split)
    if isinstance(card.ground_truth[0], DrawnScenes):
        return SceneDataset(card, name, part.images or 0, only, truth)
    folder = DataFolder(data or "", card)
    where = part.folder or name
    masks = _choose_truth(folder, card, where, ground_truth) if truth else None
    boxes = open_boxes(folder, card, where) if image_labels == "boxes" else None
    known = masks.ids() if masks else []  # also loads what the threads of `samples` share
    lines = folder.read_text(part.list).split("\n") if part.list else known
    images = ImageFiles.find(folder, card, where)
    if masks is None and part.list is None:
        lines = sorted(images.ids())
    # Lines of lists may go on behind the id; ids from names of files may hold spaces.
    ids = [line.split()[0] for line in lines if line.strip()] if part.list else list(lines)
    if not ids:
        raise DatasetError(f"split {name} of {card.name} is empty in '{folder.url}'{folder.advice()}")
    return FileDataset(card, folder, name, masks, boxes, images, tuple(dict.fromkeys(ids)), only)


def has_boxes(card: DatasetCard, data: str, split: str) -> bool:
    """Whether the card's boxes are on disk."""
    folder = DataFolder(data, card)
    return card.boxes is not None and folder.exists(boxes_place(card, card.splits[split].folder or split))


def with_truth(dataset: Dataset, ground_truth: str | None = None) -> Dataset:
    """The same pictures with their masks.

    Args:
        ground_truth: which of the card's forms; the first on disk when None.

    Raises:
        DatasetError: there are no masks.
    """
    if isinstance(dataset, SceneDataset):
        return replace(dataset, truth=True)
    assert isinstance(dataset, FileDataset)
    where = dataset.card.splits[dataset.split].folder or dataset.split
    masks = _choose_truth(dataset.folder, dataset.card, where, ground_truth)
    masks.ids()  # loads what the threads of `samples` share
    return replace(dataset, truth=masks)
