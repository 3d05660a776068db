"""Readers of the official layouts: a dataset card and a folder to pictures with ground truth."""

from __future__ import annotations

from typing import Literal

from pnp_core.errors import ClassNameError, DatasetError, UnknownNameError, UsageError
from pnp_core.inputs.cards import DatasetCard, Split, available_cards
from pnp_core.inputs.class_names import clean_class_names
from pnp_core.inputs.readers._folder import DataFolder
from pnp_core.inputs.readers._truths import choose_truth
from pnp_core.inputs.readers.base import Dataset
from pnp_core.inputs.readers.boxes import boxes_place, open_boxes
from pnp_core.inputs.readers.files import FileDataset, ImageFiles
from pnp_core.inputs.readers.scenes import SceneDataset

__all__ = ["Dataset", "get_split", "has_boxes", "open_dataset", "resolve_card"]


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
    if card.drawn and data is not None:
        raise UsageError(f"dataset {card.name} is drawn, not read; leave out --data")
    if not card.drawn and data is None:
        raise UsageError(
            f"dataset {card.name} is read from disk; say where with --data ({card.root}), or once for all with "
            f"`pnp-ovss config set data.{card.name if card.name in available_cards() else 'CARD'} FOLDER`"
        )
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
    if card.drawn:
        return SceneDataset(card, name, part.images or 0, only, truth)
    folder = DataFolder(data or "", card)
    where = card.folder_of(name)
    masks = choose_truth(folder, card, where, ground_truth) if truth else None
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
    return card.boxes is not None and folder.exists(boxes_place(card, card.folder_of(split)))
