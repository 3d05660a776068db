"""Verify a copy of a dataset on disk against its card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pnp_core.cards import DrawnScenes, load_card
from pnp_core.config import SalienceConfig
from pnp_core.errors import UnreadableImage, UsageError
from pnp_core.images import decode_image
from pnp_core.ordered import map_ahead
from pnp_core.readers import get_split, open_dataset, resolve_card
from pnp_core.readers.files import FileDataset
from pnp_core.records import Progress, Sample, silent


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        identity: what was checked.
        pictures: listed in the split.
        usable: of them, with readable picture and ground truth that fits.
        problems: one line each, in plain words.
        remarks: what was left out and costs no picture, one line each.
    """

    identity: str
    pictures: int
    usable: int
    problems: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the copy is whole."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {**asdict(self), "ok": self.ok}


def _problem(sample: Sample) -> str | None:
    """What is wrong with one picture or its ground truth."""
    if sample.fault is not None:
        return f"{sample.source}: {sample.fault}"
    try:
        decode_image(sample.image, SalienceConfig().max_pixels)
    except UnreadableImage as error:
        return f"{sample.source}: {error}"
    return None


def _remarked(samples: Iterator[Sample], remarks: list[str]) -> Iterator[Sample]:
    """Samples as they are, while what was left out of their ground truth is noted."""
    for sample in samples:
        remarks += [f"{sample.source}: {note}" for note in sample.notes]
        yield sample


def check_dataset(
    dataset: str, data: str, split: str | None, ground_truth: str | None, progress: Progress = silent
) -> CheckReport:
    """Read every picture and mask of a split.

    Raises:
        PnpError: no such dataset, split or form of ground truth, or whole folders are missing.
    """
    card = load_card(dataset)
    if isinstance(card.ground_truth[0], DrawnScenes):
        raise UsageError(f"dataset {card.name} is drawn, not read: there is nothing to check")
    card = resolve_card(card, data)
    name, part = get_split(card, split)
    opened = open_dataset(card, data, name, ground_truth)
    problems = []
    if part.images is not None and len(opened) != part.images:
        source = f"; get the whole from {card.homepage}" if card.homepage else ""
        problems.append(f"split {name} lists {len(opened)} pictures, officially it has {part.images}{source}")
    if part.list is None and isinstance(opened, FileDataset):
        without = sorted(opened.images.ids() - set(opened.ids))
        if without:
            problems.append(f"pictures without ground truth: {len(without)}, such as {', '.join(without[:3])}")
    wrong = 0
    remarks: list[str] = []
    for problem in map_ahead(_problem, _remarked(opened.samples(), remarks)):
        progress(1)
        if problem is not None:
            wrong += 1
            problems.append(problem)
    return CheckReport(opened.identity, len(opened), len(opened) - wrong, tuple(problems), tuple(remarks))
