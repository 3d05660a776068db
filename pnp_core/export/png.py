"""Palette PNG files, or grey ones of 16 bits for more than 254 classes, with a table of what they are of."""

from __future__ import annotations

import csv
import io
from types import TracebackType

from pnp_core.export.base import upright_jpeg
from pnp_core.export.labelled import Finished, Labelled
from pnp_core.inputs.images import voc_palette
from pnp_core.storage.run_folder import RunFolder


class Png:
    """`masks/NAME.png`, `index.csv` (name, source, labels in it), `classes.csv`, and `pictures/NAME.jpg` if wanted."""

    def __init__(self, out: RunFolder, finished: Finished, images: bool) -> None:
        self._out, self._finished, self._images = out, finished, images

    def __enter__(self) -> Png:
        self._stream = self._out.stream("index.csv")
        self._index = io.TextIOWrapper(self._stream.__enter__(), encoding="utf-8", newline="")
        self._rows = csv.writer(self._index, lineterminator="\n")
        self._rows.writerow(["name", "source", "height", "width", "labels"])
        return self

    def add(self, image: Labelled) -> None:
        """Write one."""
        self._out.write(f"masks/{image.name}.png", image.mask_png)
        if self._images:
            self._out.write(f"pictures/{image.name}.jpg", upright_jpeg(image.name, image.sample.image))
        labels = " ".join(map(str, image.classes))
        self._rows.writerow([image.name, image.source, *image.labels.shape, labels])

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._index.flush()
        self._index.detach()
        self._stream.__exit__(kind, value, trace)
        if kind is None:
            self._out.write("classes.csv", _classes_csv(self._finished))


def _classes_csv(finished: Finished) -> bytes:
    """Label, name, colour, by the order of the classes; 0 is background, 255 (of masks of 16 bits 65535) void."""
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(["label", "name", "red", "green", "blue"])
    for label, (name, colour) in finished.named.items():
        rows.writerow([label, name, *colour])
    rows.writerow([finished.void, "void", *voc_palette(finished.label_type)[finished.void].tolist()])
    return buffer.getvalue().encode()
