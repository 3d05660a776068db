"""mIoU from one confusion matrix per dataset, which merges over shards by addition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt

from pnp_core.data import void_of


@dataclass(frozen=True)
class ConfusionMatrix:
    """Pixel counts: row = ground truth, column = prediction. The only state of mIoU.

    >>> truth = np.array([[0, 1]], dtype=np.uint8)
    >>> (ConfusionMatrix.zeros(2) + ConfusionMatrix.of(truth, truth, 2)).counts.tolist()
    [[1, 0], [0, 1]]
    """

    counts: Int[np.ndarray, "N N"]

    @classmethod
    def zeros(cls, classes: int) -> ConfusionMatrix:
        """An empty matrix; `classes` counts background."""
        return cls(np.zeros((classes, classes), dtype=np.int64))

    @classmethod
    def of(
        cls,
        truth: UInt[np.ndarray, "H W"],
        prediction: UInt[np.ndarray, "h w"],
        classes: int,
        void_as_background: bool = False,
    ) -> ConfusionMatrix:
        """Count one picture; pixels whose truth is void (255, of 16 bits 65535) are left out.

        Args:
            void_as_background: count void as 0 instead (authors' VOC script).

        Raises:
            ValueError: sizes differ, or a label is neither a class nor void.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"ground truth is {truth.shape}, prediction {prediction.shape}: sizes must be equal")
        kept = truth != void_of(truth)
        if void_as_background:
            truth, kept = np.where(kept, truth, 0), np.ones_like(kept)
        rows, columns = truth[kept].astype(np.int64), prediction[kept].astype(np.int64)
        for name, values in (("ground truth", rows), ("prediction", columns)):
            if values.size and values.max() >= classes:
                raise ValueError(f"{name} has label {values.max()}, but there are {classes} classes from 0")
        flat = np.bincount(rows * classes + columns, minlength=classes * classes)
        return cls(flat.reshape(classes, classes))

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        return ConfusionMatrix(self.counts + other.counts)

    def intersection(self) -> Int[np.ndarray, " N"]:
        """Pixels right, per class."""
        return np.diag(self.counts)

    def union(self) -> Int[np.ndarray, " N"]:
        """Pixels of the class in truth or prediction."""
        return self.counts.sum(axis=0) + self.counts.sum(axis=1) - np.diag(self.counts)

    def iou(self) -> Float[np.ndarray, " N"]:
        """IoU per class; NaN for classes that occur nowhere."""
        union = self.union()
        return np.divide(self.intersection(), union, out=np.full(len(union), np.nan), where=union > 0, dtype=np.float64)

    def averaged(
        self, convention: Literal["present", "union"], scored: Sequence[int] | None = None
    ) -> Bool[np.ndarray, " N"]:
        """Classes that enter the mean: those in the ground truth, or all with a union (mmseg).

        Args:
            scored: labels that may enter it; all when None.
        """
        chosen = self.counts.sum(axis=1) > 0 if convention == "present" else self.union() > 0
        return chosen if scored is None else chosen & np.isin(np.arange(len(chosen)), scored)

    def mean_iou(
        self, convention: Literal["present", "union"] = "present", scored: Sequence[int] | None = None
    ) -> float:
        """Mean of the per-class IoUs; NaN when nothing was counted."""
        chosen = self.averaged(convention, scored)
        return float(self.iou()[chosen].mean()) if chosen.any() else float("nan")

    def pixel_accuracy(self) -> float:
        """Share of counted pixels that are right; NaN when nothing was counted."""
        total = self.counts.sum()
        return float(self.intersection().sum() / total) if total else float("nan")
