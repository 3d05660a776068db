"""The folder layout of Pascal VOC's segmentation task."""

from __future__ import annotations

import re
from types import TracebackType

import numpy as np

from pnp_core.data import IGNORE
from pnp_core.errors import UsageError
from pnp_core.export.base import require_8_bits, upright_jpeg
from pnp_core.export.labelled import Finished, Labelled
from pnp_core.inputs.images import encode_label_map
from pnp_core.storage.run_folder import RunFolder

_LISTS = "ImageSets/Segmentation"


class PascalVoc:
    """`JPEGImages/NAME.jpg`, `SegmentationClass/NAME.png`, lists in `ImageSets/Segmentation`, `labelmap.txt`.

    With instances also `SegmentationObject/NAME.png`, where each connected piece of a class has a number from 1.
    """

    takes = frozenset({"val", "instances"})

    def __init__(self, out: RunFolder, finished: Finished, images: bool) -> None:
        require_8_bits(finished, "Pascal VOC")
        self._out, self._colours, self._images = out, list(finished.named.values()), images
        self._names: dict[str, list[str]] = {"train": []}

    def __enter__(self) -> PascalVoc:
        return self

    def add(self, image: Labelled) -> None:
        """Write one.

        Raises:
            UsageError: it has more objects than an object mask can hold.
        """
        self._names.setdefault(image.split, []).append(image.name)
        self._out.write(f"SegmentationClass/{image.name}.png", image.mask_png)
        if image.instances:
            self._out.write(f"SegmentationObject/{image.name}.png", encode_label_map(_objects(image), image.palette))
        if self._images:
            self._out.write(f"JPEGImages/{image.name}.jpg", upright_jpeg(image.name, image.sample.image))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        everything = sorted(name for names in self._names.values() for name in names)
        lists = self._names | ({"trainval": everything} if len(self._names) > 1 else {})
        for split, names in lists.items():
            self._out.write(f"{_LISTS}/{split}.txt", "".join(f"{name}\n" for name in names).encode())
        self._out.write("labelmap.txt", self._label_map().encode())

    def _label_map(self) -> str:
        """As CVAT and Datumaro read it; names cannot hold what parts its fields."""
        lines = (f"{re.sub('[:#]', '_', name)}:{','.join(map(str, colour))}::" for name, colour in self._colours)
        return "\n".join(("# label:color_rgb:parts:actions", *lines, ""))


def _objects(image: Labelled) -> np.ndarray:
    """Objects of an image by number from 1, (H, W) uint8; void stays void."""
    found = np.where(image.labels == image.void, IGNORE, 0).astype(np.uint8)
    for number, region in enumerate(image.regions(), 1):
        if number == IGNORE:
            raise UsageError(
                f"picture '{image.name}' has more than {IGNORE - 1} objects, and object masks of Pascal VOC hold no "
                f"holds: leave out small ones with --min-area, or use --to coco-rle"
            )
        height, width = region.inside.shape
        found[region.top : region.top + height, region.left : region.left + width][region.inside] = number
    return found
