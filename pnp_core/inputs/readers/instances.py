"""COCO-Object ground truth, painted from the instance annotation file."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt, UInt8
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pnp_core.data import label_type
from pnp_core.errors import DatasetError, in_words
from pnp_core.inputs.cards import InstanceFile
from pnp_core.inputs.readers._folder import DataFolder
from pnp_core.inputs.readers.base import GroundTruthError, TruthFiles
from pnp_core.storage.first_bytes import pointer


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
        _check_form(coco.dataset)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints while it works
            coco.createIndex()
    except ValueError as error:
        known = pointer(text[:_LOOKED_AT].encode())
        raise DatasetError(f"'{folder.path(path)}' is not a COCO annotation file: {known or error}") from error
    return coco


_LOOKED_AT = 200
_FIELDS = {"images": ("id", "file_name"), "annotations": ("id", "image_id", "category_id"), "categories": ("id",)}


def _check_form(values: Any) -> None:
    """Refuse what pycocotools does not survive, and pictures that cannot be told apart.

    Raises:
        ValueError: with the reason.
    """
    for part, fields in _FIELDS.items():
        rows = values.get(part) if isinstance(values, dict) else None
        if not isinstance(rows, list):
            raise ValueError(f"it has no list '{part}'")
        for number, row in enumerate(rows, start=1):
            lost = [field for field in fields if not isinstance(row, dict) or row.get(field) is None]
            if lost:
                raise ValueError(f"entry {number} of '{part}' has no {' and no '.join(lost)}")
    for what, count in (("file name", _repeated(coco_id(i["file_name"]) for i in values["images"])),
                        ("id", _repeated(i["id"] for i in values["images"]))):  # fmt: skip
        if count is not None:
            raise ValueError(f"it lists two pictures with the {what} '{count}'")


def _repeated(values: Iterable[Any]) -> Any:
    """The first value that is there again; None when none is."""
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def coco_id(file_name: str) -> str:
    r"""A picture's id: its file name with folders and without ending; `cam0/1.jpg` and `cam1/1.jpg` are two pictures.

    >>> coco_id("cam0/1.jpg"), coco_id(r"cam0\1.jpg"), coco_id("./1.jpg")
    ('cam0/1', 'cam0/1', '1')
    """
    path = PurePosixPath(str(file_name).replace("\\", "/"))
    return str(path.with_suffix("")) if path.name else str(path)


def _polygons(annotation: Mapping[str, Any]) -> list[Any]:
    """Its parts, when it is made of polygons."""
    regions = annotation.get("segmentation")
    return regions if isinstance(regions, list) else []


def _is_sliver(polygon: Any) -> bool:
    """Whether a part has under 3 points, hence no area."""
    return isinstance(polygon, list) and len(polygon) in (0, 2, 4)


def _check_polygon(polygon: Any, side: int) -> None:
    """Refuse what pycocotools does not survive: other than numbers, half a point, not finite, far outside.

    Raises:
        ValueError: with the reason.
    """
    numbers = polygon if isinstance(polygon, list) else []
    if not numbers or not all(isinstance(n, int | float) for n in numbers):
        raise ValueError("has a polygon that is no list of numbers")
    if len(numbers) % 2:
        raise ValueError(f"has a polygon of {len(numbers)} coordinates, an odd number")
    if not all(abs(n) <= 10 * side for n in numbers):  # not finite ones included
        raise ValueError("has a polygon with coordinates far outside the picture")


def _region(annotation: Mapping[str, Any], height: int, width: int) -> UInt8[np.ndarray, "H W"] | None:
    """Pixels of one annotation: polygons, or run lengths (compressed or not) as crowds have them.

    None when it has no area: all its polygons have under 3 points.

    Raises:
        ValueError: with the reason, as the end of a sentence about the annotation.
    """
    regions = annotation.get("segmentation")
    if not regions or regions == [[]]:
        raise ValueError("has a box and no mask" if annotation.get("bbox") else "has no mask")
    if isinstance(regions, list):
        parts = [polygon for polygon in regions if not _is_sliver(polygon)]
        for polygon in parts:
            _check_polygon(polygon, max(height, width))
        encoded = coco_mask.merge(coco_mask.frPyObjects(parts, height, width)) if parts else None
    elif not isinstance(regions, dict) or "counts" not in regions:
        raise ValueError("has a mask that is neither polygons nor run lengths")
    else:
        encoded = _run_lengths(regions, height, width)
    return None if encoded is None else coco_mask.decode(encoded)


def _run_lengths(regions: Mapping[str, Any], height: int, width: int) -> Any:
    """A mask of run lengths, compressed.

    Raises:
        ValueError: it is not of the picture's size.
    """
    size = list(regions.get("size") or ())
    if size != [height, width]:
        shown = "x".join(str(side) for side in reversed(size)) or "no size"
        raise ValueError(f"has run lengths for {shown} pixels, the picture has {width}x{height}")
    counts = regions["counts"]
    if not isinstance(counts, list):
        return regions
    if not all(isinstance(n, int) and n >= 0 for n in counts) or sum(counts) != height * width:
        raise ValueError(f"has run lengths that do not add up to {width}x{height} pixels")
    lengths: Any = {"size": size, "counts": counts}  # the stubs know other forms only
    return coco_mask.frPyObjects(lengths, height, width)


_MOST_PIXELS = 178_956_970
"""As many as a picture may have."""


def paint(
    annotations: Sequence[Mapping[str, Any]], label_of: dict[int, int], height: int, width: int
) -> UInt[np.ndarray, "H W"]:
    """Paint instances over each other: crowds first, then from large to small, so that small ones stay visible.

    The size is that of the region in pixels, not the file's `area`; equal ones go by annotation id.

    Args:
        annotations: with `segmentation`, `category_id`, `iscrowd` and `id`.
        label_of: category id -> label.

    Raises:
        GroundTruthError: names the annotation that cannot be painted, and why.
    """
    if height * width > _MOST_PIXELS:
        raise GroundTruthError(f"the annotation file says that the picture has {width}x{height} pixels")
    layers = []
    for annotation in annotations:
        try:
            pixels = _region(annotation, height, width)
            if annotation["category_id"] not in label_of:
                raise ValueError(f"is of category {annotation['category_id']}, which the dataset card does not have")
        except Exception as error:  # pycocotools raises bare ones
            raise GroundTruthError(f"annotation {annotation['id']} {_why(error)}") from error
        if pixels is None:
            continue
        order = (not annotation.get("iscrowd", 0), -int(pixels.sum()), annotation["id"])
        layers.append((order, label_of[annotation["category_id"]], pixels))
    labels = np.zeros((height, width), dtype=label_type(max(label_of.values(), default=0)))
    for _, label, pixels in sorted(layers, key=lambda layer: layer[0]):
        labels[pixels > 0] = label
    return labels


def _why(error: Exception) -> str:
    return str(error) if type(error) is ValueError else f"cannot be painted: {in_words(error)}"


@dataclass(frozen=True)
class InstanceTruth(TruthFiles):
    """Ground truth from one COCO annotation file; a `Truth`."""

    form: InstanceFile

    @cached_property
    def _coco(self) -> COCO:
        return load_coco(self.folder, self.place)

    @cached_property
    def _image_ids(self) -> dict[str, int]:
        return {coco_id(image["file_name"]): image["id"] for image in self._coco.dataset["images"]}

    def present(self) -> bool:
        """Whether the file is there."""
        return self.folder.exists(self.place)

    def ids(self) -> list[str]:
        """File names with folders and without endings, sorted."""
        return sorted(self._image_ids)

    def labels(self, image_id: str) -> UInt[np.ndarray, "H W"]:
        """Labels of one picture, see `Truth`."""
        if image_id not in self._image_ids:
            raise GroundTruthError(f"'{self.place}' has no entry for picture {image_id}")
        image = self._coco.imgs[self._image_ids[image_id]]
        height, width = image.get("height"), image.get("width")
        if not all(isinstance(side, int) and side > 0 for side in (height, width)):
            raise GroundTruthError(f"'{self.place}' states no height and width of the picture")
        try:
            return paint(self._annotations(image_id), self.card.label_of, height, width)
        except GroundTruthError as error:
            raise GroundTruthError(f"'{self.place}': {error}") from error

    def remarks(self, image_id: str) -> tuple[str, ...]:
        """Which annotations have parts without area."""
        slivers = {
            annotation["id"]: sum(_is_sliver(polygon) for polygon in _polygons(annotation))
            for annotation in self._annotations(image_id)
        }
        return tuple(
            f"annotation {number}: {parts} of its polygons have under 3 points, hence no area, and are left out"
            for number, parts in slivers.items()
            if parts
        )

    def _annotations(self, image_id: str) -> Any:
        return self._coco.imgToAnns.get(self._image_ids[image_id], [])

    def stamp(self, image_id: str) -> str:
        """Of the whole file: one annotation cannot be told apart on disk."""
        return self._stamp

    @cached_property
    def _stamp(self) -> str:
        return self.folder.file(self.place).stamp()
