"""What every reader offers, and how one picture with its labels becomes a sample."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt

from pnp_core.data import Sample, void_of
from pnp_core.errors import PnpError
from pnp_core.inputs.cards import DatasetCard, InstanceFile, LabelMapFiles
from pnp_core.inputs.images import encode_label_map
from pnp_core.inputs.readers._folder import DataFolder


class GroundTruthError(PnpError):
    """The ground truth of one picture cannot be used; the pipeline quarantines the picture."""


@runtime_checkable
class Dataset(Protocol):
    """A split of a dataset, listed but not read."""

    @property
    def identity(self) -> str:
        """What the pictures are, for people and for telling runs apart."""
        ...

    def __len__(self) -> int:
        """Number of pictures in the split."""
        ...

    def digest(self, limit: int | None) -> str:
        """Changes when the protocol or a file of the first `limit` pictures changes."""
        ...

    def samples(self) -> Iterator[Sample]:
        """The pictures in order, with ground truth and image-level labels.

        One that cannot be used comes with a `fault`. With a class subset, pictures without any of
        its classes are left out.
        """
        ...

    def shuffled(self, seed: int) -> Dataset:
        """The same pictures in a random order."""
        ...

    def restricted(self, keys: Collection[str]) -> Dataset:
        """The pictures with some keys, in their order."""
        ...

    def with_truth(self, ground_truth: str | None = None) -> Dataset:
        """The same pictures with their masks.

        Args:
            ground_truth: which of the card's forms; the first on disk when None.

        Raises:
            UnknownNameError: the card has no such form.
            DatasetError: there are no masks.
        """
        ...

    def unlisted(self) -> list[str]:
        """Ids of the pictures that lie with the split's and are none of them, sorted."""
        ...


@runtime_checkable
class Truth(Protocol):
    """Ground truth of a split, whatever its form."""

    @property
    def name(self) -> str:
        """The form's name on the card."""
        ...

    @property
    def place(self) -> str:
        """File or folder that must be there, relative to the data folder."""
        ...

    def present(self) -> bool:
        """Whether it is on disk."""
        ...

    def ids(self) -> list[str]:
        """Ids of all pictures that have ground truth, in order."""
        ...

    def labels(self, image_id: str) -> UInt[np.ndarray, "H W"]:
        """Labels 0 (background), 1 .. N and 255 (not scored); of over 254 classes in 16 bits, not scored is 65535.

        Raises:
            GroundTruthError: missing, unreadable, or with values that stand for nothing.
        """
        ...

    def stamp(self, image_id: str) -> str:
        """Changes when the picture's ground truth changes on disk."""
        ...

    def remarks(self, image_id: str) -> tuple[str, ...]:
        """What of the picture's ground truth is left out, for people."""
        ...


@dataclass(frozen=True)
class TruthFiles:
    """What the forms of ground truth on disk share."""

    folder: DataFolder
    card: DatasetCard
    split: str
    form: LabelMapFiles | InstanceFile

    @property
    def name(self) -> str:
        """The form's name on the card."""
        return self.form.name

    @property
    def place(self) -> str:
        """Its file, or the template of its files, in this split."""
        return self.form.path.replace("{split}", self.split)


def _restrict(labels: UInt[np.ndarray, "H W"], only: Sequence[int], background: bool) -> UInt[np.ndarray, "H W"]:
    """Keep some labels; the others become background, or unscored where background is no class.

    >>> _restrict(np.array([[0, 1, 2, 255]], dtype=np.uint8), [2], background=True).tolist()
    [[0, 0, 2, 255]]
    """
    void = void_of(labels)
    table = np.full(void + 1, 0 if background else void, dtype=labels.dtype)
    table[void] = void
    table[list(only)] = list(only)
    return table[labels]


def labelled_sample(
    sample: Sample,
    labels: UInt[np.ndarray, "H W"] | None,
    only: Sequence[int] | None,
    background: bool,
) -> Sample | None:
    """Put ground truth on a sample; None when a class subset has nothing in it.

    Args:
        sample: with `classes` when image-level labels do not come from the mask.
        labels: None when ground truth is not to be read.
    """
    if only is not None and labels is not None:
        labels = _restrict(labels, only, background)
    classes = sample.classes
    if classes is None and labels is not None:
        present = np.flatnonzero(np.bincount(labels.ravel()))
        classes = tuple(int(c) for c in present if c not in (0, void_of(labels)))
    elif only is not None and classes is not None:
        classes = tuple(c for c in classes if c in only)
    if only is not None and classes == ():
        return None
    return replace(sample, label_map=None if labels is None else encode_label_map(labels), classes=classes)
