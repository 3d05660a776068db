"""Verify a copy of a dataset on disk against its card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pnp_core.data import Progress, Sample, label_type, silent, void_of
from pnp_core.errors import UnreadableImage, UsageError
from pnp_core.inputs.cards import load_card
from pnp_core.inputs.images import decode_image, decode_label_map
from pnp_core.inputs.ordered import map_ahead
from pnp_core.inputs.readers import get_split, open_dataset, resolve_card
from pnp_core.stages.config import SalienceConfig
from pnp_core.stages.scores import without_classes


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        identity: what was checked.
        images: listed in the split.
        usable: of them, with readable picture and ground truth that fits.
        problems: one line each, in plain words.
        remarks: what is no fault by itself and may be meant otherwise, or was left out and costs no picture.
    """

    identity: str
    images: int
    usable: int
    problems: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the copy is whole."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        values = asdict(self)
        return {"pictures": values.pop("images"), **values, "ok": self.ok}


@dataclass(frozen=True)
class _Seen:
    """What is wrong with one picture or its ground truth, and the pixels of each label in it."""

    source: str
    problem: str | None
    pixels: np.ndarray | None = None


def _look(sample: Sample) -> _Seen:
    if sample.fault is not None:
        return _Seen(sample.source, f"{sample.source}: {sample.fault}")
    try:
        decode_image(sample.image, SalienceConfig().max_pixels)
    except UnreadableImage as error:
        return _Seen(sample.source, f"{sample.source}: {error}")
    if sample.label_map is None:
        return _Seen(sample.source, None)
    return _Seen(sample.source, None, _pixels(decode_label_map(sample.label_map)))


def _pixels(labels: np.ndarray) -> np.ndarray:
    """Pixels of each label, void last."""
    return np.bincount(labels.ravel(), minlength=void_of(labels) + 1)


class _Masks:
    """What the masks of a split hold."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._void_label = int(np.iinfo(label_type(len(names))).max)
        self._pixels = np.zeros(self._void_label + 1, dtype=np.int64)
        self._number = 0
        self._void: list[str] = []
        self._bare: list[str] = []

    def add(self, seen: _Seen) -> None:
        """Count a picture's mask in."""
        if seen.pixels is None:
            return
        self._number += 1
        self._pixels += seen.pixels
        labels = set(np.flatnonzero(seen.pixels).tolist())
        if seen.pixels[self._void_label] >= _FILLED * seen.pixels.sum():
            self._void.append(seen.source)
        elif labels == {0, self._void_label}:
            self._bare.append(seen.source)

    def problems(self) -> list[str]:
        """What no score can be worth anything with."""
        if not self._number or self._pixels[1 : self._void_label].any():
            return []
        void = self._void_label
        return [without_classes(int(self._pixels[0]), int(self._pixels[void]), self._number, void)]

    def remarks(self) -> list[str]:
        """What may be meant otherwise."""
        if self.problems() or not self._number:
            return []
        void = self._void_label
        absent = [name for label, name in enumerate(self._names, start=1) if not self._pixels[label]]
        kinds = (
            (absent, f"of {len(self._names)} classes occur in no mask"),
            (self._void, f"of {self._number} masks are nearly all void ({void}), which is never scored"),
            (
                self._bare,
                f"of {self._number} masks hold 0 and {void} alone, background and void: is {void} meant as a class?",
            ),
        )
        return [
            f"{len(found)} {what} ({', '.join(found[:_NAMED])}{' ...' * (len(found) > _NAMED)})"
            for found, what in kinds
            if found
        ]


_NAMED = 5
_FILLED = 0.9
"""Share of void in a mask that is remarked on; one that is void all over is a fault that its reader finds."""


def _remarked(samples: Iterator[Sample], remarks: list[str]) -> Iterator[Sample]:
    """Samples as they are, while what was left out of their ground truth is noted."""
    for sample in samples:
        remarks += [f"{sample.source}: {note}" for note in sample.notes]
        yield sample


def check_dataset(
    dataset: str, data: str | None, split: str | None, ground_truth: str | None, progress: Progress = silent
) -> CheckReport:
    """Read every picture and mask of a split, and look at what the masks hold.

    Raises:
        PnpError: no such dataset, split or form of ground truth, or whole folders are missing.
    """
    card = load_card(dataset)
    if card.drawn:
        raise UsageError(f"dataset {card.name} is drawn, not read: there is nothing to check")
    card = resolve_card(card, data)
    name, part = get_split(card, split)
    opened = open_dataset(card, data, name, ground_truth)
    problems = []
    if part.images is not None and len(opened) != part.images:
        source = f"; get the whole from {card.homepage}" if card.homepage else ""
        problems.append(f"split {name} lists {len(opened)} pictures, officially it has {part.images}{source}")
    if part.list is None and (without := opened.unlisted()):  # the files of ground truth are the list
        problems.append(f"pictures without ground truth: {len(without)}, such as {', '.join(without[:3])}")
    masks, faults, remarks = _Masks(card.names), [], []
    for seen in map_ahead(_look, _remarked(opened.samples(), remarks)):
        progress(1)
        masks.add(seen)
        faults += [seen.problem] if seen.problem else []
    found = (*problems, *masks.problems(), *faults)
    return CheckReport(opened.identity, len(opened), len(opened) - len(faults), found, (*masks.remarks(), *remarks))
