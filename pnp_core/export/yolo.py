"""The folder of YOLO's instance segmentation: a text file of polygons for each picture."""

from __future__ import annotations

from types import TracebackType

import numpy as np
import yaml

from pnp_core.export.base import upright_jpeg
from pnp_core.export.labelled import SPLITS, Finished, Labelled
from pnp_core.export.outline import outline
from pnp_core.export.regions import Region
from pnp_core.storage.run_folder import RunFolder

_HEAD = "# Made by `pnp-ovss export --to yolo`. Classes begin at 0 here: label 1 of the run is class 0.\n"
_OWN_IDS = "# Made by `pnp-ovss export --to yolo`. Classes are counted from 0 here; in masks of the run they are {}.\n"


class Yolo:
    """`images/SPLIT/NAME.jpg`, `labels/SPLIT/NAME.txt`, `data.yaml`.

    A line of a text file is the outline of one connected piece of a class: its class from 0, then x and y of its points
    in [0, 1]. Holes, void and confidence have no place there. A picture without any class has an empty file.
    """

    takes = frozenset({"val", "instances"})

    def __init__(self, out: RunFolder, finished: Finished, images: bool) -> None:
        self._out, self._classes, self._images = out, finished.classes, images
        self._places = finished.places
        self._head = _OWN_IDS.format(", ".join(map(str, finished.ids))) if finished.own_ids else _HEAD
        self._splits: set[str] = set()

    def __enter__(self) -> Yolo:
        return self

    def add(self, image: Labelled) -> None:
        """Write one."""
        self._splits.add(image.split)
        size, places = image.labels.shape, self._places
        lines = [polygon_line(one, size, places[one.label]) for one in image.regions(instances=True)]
        self._out.write(f"labels/{image.split}/{image.name}.txt", "".join(lines).encode())
        if self._images:
            self._out.write(f"images/{image.split}/{image.name}.jpg", upright_jpeg(image.name, image.sample.image))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._out.write("data.yaml", self._data().encode())

    def _data(self) -> str:
        # No `path`: without one it is the folder of this file, wherever that lies. Both splits have to be named.
        folders = {split: f"images/{split if split in self._splits else _other(split)}" for split in SPLITS}
        values = {**folders, "names": dict(enumerate(self._classes))}
        return self._head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _other(split: str) -> str:
    """Where a split has no picture."""
    return "val" if split == "train" else "train"


def polygon_line(region: Region, size: tuple[int, int], place: int) -> str:
    """A connected region as a line of a label file.

    Args:
        size: of the image (H, W) in pixels.
        place: of its class, from 1.
    """
    height, width = size
    points = (outline(region.inside) + np.array([region.left, region.top])) / (width, height)
    # Seven digits keep a point in its pixel up to a side of 65,500, and float32, which is what is read, does too.
    return f"{place - 1} {' '.join(f'{value:.7f}' for value in points.ravel().tolist())}\n"
