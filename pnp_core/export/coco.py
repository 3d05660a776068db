"""COCO JSON with run-length encoded masks, one annotation per class and picture, or per connected piece of it."""

from __future__ import annotations

import json
import tempfile
from types import TracebackType
from typing import Any, cast

import numpy as np
from pycocotools import mask as rle

from pnp_core.export.base import base_name, upright_jpeg
from pnp_core.export.labelled import Finished, Labelled
from pnp_core.export.regions import Region
from pnp_core.storage.run_folder import RunFolder

ANNOTATIONS = "annotations.json"


class CocoRle:
    """`annotations.json`, and `images/NAME.jpg` if wanted.

    `file_name` is a base name: NAME.jpg, or of the picture's own file where the pictures are not written. Category ids
    are the labels; `score` of an annotation is its mean confidence, where the run kept it. COCO has no void: pixels
    below the floor are in no annotation, and the image's own field `void` holds them.
    """

    takes = frozenset({"instances"})

    def __init__(self, out: RunFolder, finished: Finished, images: bool) -> None:
        self._out, self._with_images = out, images
        self._classes = list(zip(finished.ids, finished.classes, strict=True))
        self._images = self._annotations = 0

    def __enter__(self) -> CocoRle:
        # In the file all annotations follow all images: they wait on the disk, not in memory.
        self._waiting = tempfile.TemporaryFile("w+", encoding="utf-8")
        self._stream = self._out.stream(ANNOTATIONS)
        self._file = self._stream.__enter__()
        self._say('{"info": {"description": "made by pnp-ovss export"},\n"categories": ')
        categories = [{"id": i, "name": name, "supercategory": ""} for i, name in self._classes]
        self._say(json.dumps(categories, ensure_ascii=False) + ',\n"images": [')
        return self

    def _say(self, text: str) -> None:
        self._file.write(text.encode())

    def add(self, image: Labelled) -> None:
        """Write one."""
        self._images += 1
        height, width = image.labels.shape
        file = f"{image.name}.jpg" if self._with_images else base_name(image.source)
        entry = {"id": self._images, "file_name": file, "height": height, "width": width}
        entry["source"] = image.source
        if (void := image.labels == image.void).any():
            entry["void"] = _encode(void)
        self._say(f"{',' if self._images > 1 else ''}\n{json.dumps(entry, ensure_ascii=False)}")
        for region in image.regions():
            self._annotate(region, image.labels.shape)
        if self._with_images:
            self._out.write(f"images/{file}", upright_jpeg(image.name, image.sample.image))

    def _annotate(self, region: Region, size: tuple[int, int]) -> None:
        self._annotations += 1
        encoded = _encode(region.whole(size))
        annotation = {
            "id": self._annotations,
            "image_id": self._images,
            "category_id": region.label,
            "iscrowd": 0,
            "area": region.area,
            "bbox": [float(n) for n in rle.toBbox(cast("Any", encoded))],
            "segmentation": encoded,
        }
        if region.score is not None:
            annotation["score"] = round(region.score, 4)
        self._waiting.write(f"{',' if self._annotations > 1 else ''}\n{json.dumps(annotation)}")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._waiting:
            if kind is None:
                self._say('],\n"annotations": [')
                self._waiting.seek(0)
                while part := self._waiting.read(1 << 20):
                    self._say(part)
                self._say("]}\n")
        self._stream.__exit__(kind, value, trace)


def _encode(where: np.ndarray) -> dict[str, Any]:
    encoded: Any = rle.encode(np.asfortranarray(where, dtype=np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}
