"""COCO-Object ground truth, painted from the instance annotation file."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt8
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pnp_core.cards import InstanceFile
from pnp_core.errors import DatasetError
from pnp_core.readers.base import GroundTruthError, TruthFiles
from pnp_core.readers.folder import DataFolder


def load_coco(folder: DataFolder, path: str) -> COCO:
    """A COCO annotation file, indexed; a process keeps the last one, which may be hundreds of megabytes.

    Raises:
        DatasetError: missing, or not a COCO annotation file.
    """
    return _load_coco(folder, path, folder.file(path).stamp())


@lru_cache(maxsize=1)
def _load_coco(folder: DataFolder, path: str, stamp: str) -> COCO:
    text = folder.read_text(path)
    coco = COCO()
    try:
        coco.dataset = json.loads(text)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints while it works
            coco.createIndex()
        stems = {PurePosixPath(image["file_name"]).stem for image in coco.dataset["images"]}
        if len(stems) != len(coco.dataset["images"]) or "categories" not in coco.dataset:
            raise ValueError("a file name is listed twice, or there are no categories")
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"'{folder.path(path)}' is not a COCO annotation file: {error!r}") from error
    return coco


def _check_polygons(polygons: list[Any], side: int) -> None:
    """Refuse what pycocotools does not survive: other than numbers, too few, not finite, far outside.

    Raises:
        ValueError: with the reason.
    """
    for polygon in polygons:
        numbers = np.asarray(polygon, dtype=np.float64)
        if numbers.ndim != 1 or len(numbers) < 6 or len(numbers) % 2:
            raise ValueError("a polygon needs an even number of coordinates, at least 6")
        if not (np.abs(numbers) <= 10 * side).all():  # not finite ones included
            raise ValueError("a polygon has coordinates far outside the picture")


def _region(annotation: Mapping[str, Any], height: int, width: int) -> UInt8[np.ndarray, "H W"]:
    """Pixels of one annotation: polygons, or run lengths (compressed or not) as crowds have them."""
    regions = annotation["segmentation"]
    if isinstance(regions, list):
        _check_polygons(regions, max(height, width))
        encoded = coco_mask.merge(coco_mask.frPyObjects(regions, height, width))
    elif isinstance(regions["counts"], list):
        encoded = coco_mask.frPyObjects(regions, height, width)
    else:
        encoded = regions
    return coco_mask.decode(encoded)


def paint(
    annotations: Sequence[Mapping[str, Any]], label_of: dict[int, int], height: int, width: int
) -> UInt8[np.ndarray, "H W"]:
    """Paint instances over each other: crowds first, then from large to small, so that small ones stay visible.

    The size is that of the region in pixels, not the file's `area`; equal ones go by annotation id.

    Args:
        annotations: with `segmentation`, `category_id`, `iscrowd` and `id`.
        label_of: category id -> label.
    """
    layers = []
    for annotation in annotations:
        pixels = _region(annotation, height, width)
        order = (not annotation.get("iscrowd", 0), -int(pixels.sum()), annotation["id"])
        layers.append((order, label_of[annotation["category_id"]], pixels))
    labels = np.zeros((height, width), dtype=np.uint8)
    for _, label, pixels in sorted(layers, key=lambda layer: layer[0]):
        labels[pixels > 0] = label
    return labels


@dataclass(frozen=True)
class InstanceTruth(TruthFiles):
    """Ground truth from one COCO annotation file; a `Truth`."""

    form: InstanceFile

    @cached_property
    def _coco(self) -> COCO:
        return load_coco(self.folder, self.place)

    @cached_property
    def _image_ids(self) -> dict[str, int]:
        return {PurePosixPath(image["file_name"]).stem: image["id"] for image in self._coco.dataset["images"]}

    def present(self) -> bool:
        """Whether the file is there."""
        return self.folder.exists(self.place)

    def ids(self) -> list[str]:
        """File name stems, sorted."""
        return sorted(self._image_ids)

    def labels(self, picture_id: str) -> UInt8[np.ndarray, "H W"]:
        """Labels of one picture, see `Truth`."""
        if picture_id not in self._image_ids:
            raise GroundTruthError(f"'{self.place}' has no entry for picture {picture_id}")
        image = self._coco.imgs[self._image_ids[picture_id]]
        annotations: Any = self._coco.imgToAnns.get(image["id"], [])
        try:
            return paint(annotations, self.card.label_of, image["height"], image["width"])
        except Exception as error:  # pycocotools raises bare ones
            raise GroundTruthError(
                f"an annotation of picture {picture_id} in '{self.place}' cannot be painted: {error!r}"
            ) from error

    def stamp(self, picture_id: str) -> str:
        """Of the whole file: one annotation cannot be told apart on disk."""
        return self._stamp

    @cached_property
    def _stamp(self) -> str:
        return self.folder.file(self.place).stamp()
