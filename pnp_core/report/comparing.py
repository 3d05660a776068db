"""What finished runs make of the same pictures: where their masks differ, and how right each is."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from pnp_core.report.pairing import VOID, Pairing, Shared


@dataclass
class Counts:
    """Pixels by label of one run, over all pictures; of a picture with ground truth also against it."""

    pixels: np.ndarray
    images: np.ndarray
    right: np.ndarray
    predicted: np.ndarray
    """Where there is ground truth that counts."""
    confidence: float = 0.0

    @classmethod
    def zeros(cls, labels: int) -> Counts:
        """Nothing counted yet."""
        pixels, images, right, predicted = (np.zeros(labels, np.int64) for _ in range(4))
        return cls(pixels, images, right, predicted)

    def iou(self, truth: np.ndarray) -> np.ndarray:
        """IoU of each label; NaN where there is nothing.

        Args:
            truth: pixels of the ground truth by label.
        """
        union = self.predicted + truth - self.right
        return np.divide(self.right, union, out=np.full(len(union), np.nan), where=union > 0)


@dataclass
class Totals:
    """What a comparison found.

    Attributes:
        images: pictures that were compared.
        equal: of these the ones whose masks are the same in all runs.
        scored: those with ground truth.
        pixels, differing: of all pictures.
        pairs: pixels that differ between each two runs, by their places.
        runs: counts of each.
        truth: pixels of the ground truth by label; void counts nowhere.
        agreed, named: pixels of a label in all runs, and in at least one.
        shown: of each part of the first run the keys that are shown, with what differs in each, a share in [0, 1].
    """

    runs: list[Counts]
    truth: np.ndarray
    agreed: np.ndarray
    named: np.ndarray
    images: int = 0
    equal: int = 0
    scored: int = 0
    pixels: int = 0
    differing: int = 0
    pairs: dict[tuple[int, int], int] = field(default_factory=dict)
    shown: dict[int, list[str]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Of all pixels those that differ, in [0, 1]."""
        return self.differing / self.pixels if self.pixels else 0.0


def count(pairing: Pairing, most: int) -> Totals:
    """Go through all shared pictures once, by the shard.

    Args:
        most: pictures to show at most: those that differ most; of equal ones the first.
    """
    labels = len(pairing.classes.names)
    truth, agreed, named = (np.zeros(labels, np.int64) for _ in range(3))
    totals = Totals([Counts.zeros(labels) for _ in pairing.runs], truth, agreed, named)
    totals.pairs = dict.fromkeys(combinations(range(len(pairing.runs)), 2), 0)
    shown: list[tuple[float, int, int, str]] = []
    for number, part in enumerate(pairing.runs[0].parts):
        keys = pairing.keys(part)
        left = set(keys)
        for image in pairing.shared(part, keys):
            left.discard(image.key)
            share = _add(totals, image, labels)
            keep = heapq.heappush if len(shown) < most else heapq.heappushpop
            keep(shown, (share, -totals.images, number, image.key))
        for key in sorted(left):
            pairing.unlike.add(key)
    for _, _, number, key in shown:
        totals.shown.setdefault(number, []).append(key)
    return totals


def _add(totals: Totals, image: Shared, labels: int) -> float:
    """Count one picture; returns the share of its pixels that differ."""
    differ = int(image.differ.sum())
    totals.images += 1
    totals.equal += differ == 0
    totals.pixels += image.maps[0].size
    totals.differing += differ
    for pair in totals.pairs:
        totals.pairs[pair] += int((image.maps[pair[0]] != image.maps[pair[1]]).sum())
    agreed = np.where(image.differ, VOID, image.maps[0])
    totals.agreed += _by_label(agreed, labels)
    own = [_by_label(labelled, labels) for labelled in image.maps]
    # A pixel that differs is named by up to as many classes as there are runs, each of them once.
    totals.named += _named(image.maps, labels)
    for run, pixels, confidence in zip(totals.runs, own, image.confidence, strict=True):
        run.pixels += pixels
        run.images += pixels > 0
        run.confidence += confidence
    if image.truth is not None:
        totals.scored += 1
        totals.truth += _by_label(image.truth, labels)
        for run, labelled in zip(totals.runs, image.maps, strict=True):
            right, predicted = against(labelled, image.truth, labels)
            run.right += right
            run.predicted += predicted
    return differ / image.maps[0].size


def _by_label(labelled: np.ndarray, labels: int) -> np.ndarray:
    return np.bincount(labelled[labelled != VOID], minlength=labels)


def _named(maps: Sequence[np.ndarray], labels: int) -> np.ndarray:
    """Pixels by label that at least one run gives it."""
    stacked = np.sort(np.stack([labelled.ravel() for labelled in maps]), axis=0)
    stacked[1:][stacked[1:] == stacked[:-1]] = VOID
    return _by_label(stacked, labels)


def against(labelled: np.ndarray, truth: np.ndarray, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels by label that are right, and all that are predicted, where the ground truth is not void."""
    counts = truth != VOID
    return _by_label(labelled[counts & (labelled == truth)], labels), _by_label(labelled[counts], labels)


def mean_iou(iou: np.ndarray, truth: np.ndarray, scored: np.ndarray) -> float | None:
    """Mean over the scored labels that are in the ground truth; None without one.

    Args:
        iou: by label.
        truth: pixels of the ground truth by label.
        scored: bool by label.
    """
    chosen = scored & (truth > 0)
    return float(iou[chosen].mean()) if chosen.any() else None


def image_miou(image: Shared, scored: np.ndarray) -> list[float | None]:
    """MIoU of each run on one picture, see `mean_iou`; None without ground truth."""
    if image.truth is None:
        return [None] * len(image.maps)
    labels = len(scored)
    truth = _by_label(image.truth, labels)
    found = []
    for labelled in image.maps:
        run = Counts.zeros(labels)
        run.right, run.predicted = against(labelled, image.truth, labels)
        found.append(mean_iou(run.iou(truth), truth, scored))
    return found


def scored_labels(pairing: Pairing) -> np.ndarray:
    """Bool by label: those that enter a mean over classes, as the run with the ground truth scores, where all runs
    know the class.
    """
    names = pairing.classes.names
    if pairing.with_truth is None:
        return np.zeros(len(names), bool)
    own: dict[str, Any] = (pairing.with_truth.record.summary.model_extra or {}).get("per_class_iou") or {}
    everywhere = set.intersection(*({names[0], *run.finished.classes} for run in pairing.runs))
    return np.array([name in own and name in everywhere for name in names])
