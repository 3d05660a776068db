"""Ground truth that comes as one PNG per picture: VOC, Context, ADE20K, COCO-Stuff."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int, UInt
from PIL import Image

from pnp_core.data import IGNORE, label_type
from pnp_core.inputs.cards import DatasetCard, LabelMapFiles
from pnp_core.inputs.images import LABEL_MODES
from pnp_core.inputs.readers.base import GroundTruthError, TruthFiles
from pnp_core.inputs.sources.base import NotReadError
from pnp_core.storage.first_bytes import FORMATS

_NO_LABEL = -1


def value_table(card: DatasetCard, form: LabelMapFiles, bits: int = 8) -> Int[np.ndarray, " V"]:
    """Pixel value -> label (0 background, 1 .. N, void not scored), -1 for values that stand for nothing.

    Pixels of no class (value + offset = 0) are background where the card scores it, else not scored. In files of 16
    bits 65535 is never scored where the card names no values of its own, nor is 255 where it is no class.

    Args:
        bits: of the file, 8 or 16; the labels' void goes by the number of classes, 255 or 65535.
    """
    size, void = 2**bits, int(np.iinfo(label_type(len(card.classes))).max)
    table = np.full(size, _NO_LABEL if form.others == "refuse" else 0, dtype=np.int32)
    if 0 <= -form.offset < size:
        table[-form.offset] = 0 if card.background else void
    positions = {i: i for i in range(1, len(card.classes) + 1)}
    for number, label in (card.label_of if form.values == "ids" else positions).items():
        if 0 <= number - form.offset < size:
            table[number - form.offset] = label
    ignored = {value for value in form.ignore if value < size}
    if bits == 16 and form.ignore == (IGNORE,):
        ignored = {size - 1} | (ignored if table[IGNORE] <= 0 else set())
    table[list(ignored)] = void
    return table


def _read_values(data: bytes, path: str) -> UInt[np.ndarray, "H W"]:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.mode not in LABEL_MODES:
                raise GroundTruthError(
                    f"ground truth '{path}' is a {image.mode} picture: it must be a palette or grey PNG whose pixel "
                    f"values are class numbers"
                )
            return np.array(image, dtype=LABEL_MODES[image.mode])
    except GroundTruthError:
        raise
    except Exception as error:  # Pillow raises nearly any type on hostile bytes
        raise GroundTruthError(f"ground truth '{path}' cannot be read: {' '.join(str(error).split())}") from error


@dataclass(frozen=True)
class LabelMapTruth(TruthFiles):
    """One PNG per picture; a `Truth`."""

    form: LabelMapFiles

    @cached_property
    def _tables(self) -> dict[int, np.ndarray]:
        return {bits: value_table(self.card, self.form, bits) for bits in (8, 16)}

    def path(self, image_id: str) -> str:
        """File of one picture, relative to the data folder."""
        return self.place.replace("{id}", image_id)

    def present(self) -> bool:
        """Whether there is at least one file."""
        return bool(self.ids())

    def ids(self) -> list[str]:
        """From the file names, sorted."""
        return self._ids

    @cached_property
    def _ids(self) -> list[str]:
        # "{id}.png" would take "1_labelTrainIds.png" for a picture of its own.
        derived = ("_labelTrainIds", "_instanceTrainIds")
        return [i for i in self.folder.matching(self.place) if not i.endswith(derived)]

    def labels(self, image_id: str) -> UInt[np.ndarray, "H W"]:
        """Labels of one picture, see `Truth`."""
        path = self.path(image_id)
        try:
            data = self.folder.file(path).read()
        except NotReadError as error:
            raise GroundTruthError(f"ground truth '{path}' {error}") from error
        values = _read_values(data, path)
        labels = self._tables[8 * values.itemsize][values]
        if (labels == _NO_LABEL).any():
            wrong = np.unique(values[labels == _NO_LABEL])
            shown = ", ".join(map(str, wrong[:5])) + (" ..." if len(wrong) > 5 else "")
            raise GroundTruthError(f"ground truth '{path}' has values that stand for no class: {shown}")
        return labels.astype(label_type(len(self.card.classes)))

    def remarks(self, image_id: str) -> tuple[str, ...]:
        """Nothing is ever left out."""
        return ()

    def stamp(self, image_id: str) -> str:
        """Size and time of the file."""
        return self.folder.file(self.path(image_id)).stamp()
