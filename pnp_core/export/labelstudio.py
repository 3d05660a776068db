"""Pre-annotations of Label Studio: tasks whose predictions are masks to be mended with its brush."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import Bool

from pnp_core.export.base import upright_jpeg
from pnp_core.export.labelled import Finished, Labelled
from pnp_core.export.regions import Region
from pnp_core.storage.run_folder import RunFolder
from pnp_core.text.visible import visible

TASKS_PER_FILE, BYTES_PER_FILE = 256, 16 * 2**20
LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves files of its own machine, by their path below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""


class LabelStudio:
    """`tasks/00000.json` ..., `label_config.xml`, and `images/NAME.jpg` if wanted.

    Each file is a list of tasks to import; each region is a brush mask in its run-length code, with its mean confidence
    as `score`. Pictures that are not written here are named by their source.
    """

    takes = frozenset({"instances"})

    def __init__(self, out: RunFolder, finished: Finished, images: bool) -> None:
        self._out, self._model, self._images = out, finished.model, images
        self._labels = {i: (visible(name), bytes(colour).hex()) for i, (name, colour) in finished.named.items()}
        self._tasks: list[str] = []
        self._bytes = self._files = 0

    def __enter__(self) -> LabelStudio:
        return self

    def add(self, image: Labelled) -> None:
        """Take one; a file is written when it is full."""
        results = [self._result(image, number, region) for number, region in enumerate(image.regions(), 1)]
        scores = [result["score"] for result in results if "score" in result]
        prediction: dict[str, Any] = {"model_version": self._model, "result": results}
        if scores:
            prediction["score"] = round(sum(scores) / len(scores), 4)
        file = f"images/{image.name}.jpg"
        data = {"image": f"{LOCAL_FILES}{file}" if self._images else image.source}
        data |= {"name": image.name, "source": image.source}
        task = json.dumps({"data": data, "predictions": [prediction]}, ensure_ascii=False, separators=(",", ":"))
        self._tasks.append(task)
        self._bytes += len(task)
        if len(self._tasks) == TASKS_PER_FILE or self._bytes >= BYTES_PER_FILE:
            self._write()
        if self._images:
            self._out.write(file, upright_jpeg(image.name, image.sample.image))

    def _result(self, image: Labelled, number: int, region: Region) -> dict[str, Any]:
        height, width = size = image.labels.shape
        result: dict[str, Any] = {
            "id": f"{image.name}-{number}",
            "type": "brushlabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": list(brush_code(region.whole(size))),
                "brushlabels": [self._labels[region.label][0]],
            },
        }
        if region.score is not None:
            result["score"] = round(region.score, 4)
        return result

    def _write(self) -> None:
        self._out.write(f"tasks/{self._files:05d}.json", ("[\n" + ",\n".join(self._tasks) + "\n]\n").encode())
        self._tasks, self._bytes, self._files = [], 0, self._files + 1

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if self._tasks or not self._files:
                self._write()
            self._out.write("label_config.xml", self._config().encode())

    def _config(self) -> str:
        labels = "".join(
            f'    <Label value={quoteattr(name)} background="#{colour}"/>\n'
            for i, (name, colour) in self._labels.items()
            if i
        )
        return (
            '<View>\n  <Image name="image" value="$image" zoom="true"/>\n  <BrushLabels name="label" toName="image">\n'
            f"{labels}  </BrushLabels>\n</View>\n"
        )


_SIZES = (4, 8, 12, 16)
"""Bits that the length of a run may be written with."""
_CHANNELS = 4
"""A mask is kept as a picture of red, green, blue and opacity."""


def brush_code(inside: Bool[np.ndarray, "H W"]) -> bytes:
    """A mask in the run-length code of Label Studio's brush (`@thi.ng/rle-pack`).

    It begins with the number of values (32 bits), bits of a value less one (5), and bits of four kinds of lengths less
    one (4 each). Then for each run: 1, the kind of its length (2 bits), its length less one, its value (8 bits).
    """
    flat = inside.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    lengths = (np.diff(ends, prepend=0) * _CHANNELS).tolist()
    bits = [f"{flat.size * _CHANNELS:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    value = bool(flat[0])
    for length in lengths:
        bits += _run(length, "11111111" if value else "00000000")
        value = not value
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def _run(length: int, value: str) -> list[str]:
    written = []
    while length > 0:
        part = min(length, 1 << _SIZES[-1])
        kind = next(n for n, size in enumerate(_SIZES) if part <= 1 << size)
        written.append(f"1{kind:02b}{part - 1:0{_SIZES[kind]}b}{value}")
        length -= part
    return written
