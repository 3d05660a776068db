"""Tars of WebDataset: pictures with their masks, read one after the other."""

from __future__ import annotations

import io
import json
import tarfile
from types import TracebackType

from pnp_core.export.base import upright_jpeg
from pnp_core.export.labelled import Finished, Labelled, Split
from pnp_core.storage.run_folder import RunFolder

IMAGES_PER_TAR, BYTES_PER_TAR = 512, 64 * 2**20


class _Tar:
    """A tar in memory; the same files always give the same bytes."""

    def __init__(self) -> None:
        self.images = 0
        self.buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))

    def close(self) -> bytes:
        self._tar.close()
        return self.buffer.getvalue()


class WebDataset:
    """`train-000000.tar` ..., and `val-000000.tar` ... where there is that split; `classes.json`.

    A sample is NAME.jpg, NAME.mask.png and NAME.json (source, size, pixels by label). `classes.json` has the names of
    the labels 0, 1 ... and the label of void; `labels`, where these have ids of their own.
    """

    takes = frozenset({"val"})

    def __init__(self, out: RunFolder, finished: Finished, images: bool) -> None:
        self._out, self._finished, self._images = out, finished, images
        self._open: dict[Split, _Tar] = {}
        self._written: dict[Split, int] = {}

    def __enter__(self) -> WebDataset:
        return self

    def add(self, image: Labelled) -> None:
        """Take one; a tar is written when it is full."""
        if image.split not in self._open:
            self._open[image.split] = _Tar()
        tar = self._open[image.split]
        if self._images:
            tar.add(f"{image.name}.jpg", upright_jpeg(image.name, image.sample.image))
        tar.add(f"{image.name}.mask.png", image.mask_png)
        height, width = image.labels.shape
        about = {"source": image.source, "height": height, "width": width, "pixels": image.classes}
        tar.add(f"{image.name}.json", json.dumps(about, ensure_ascii=False).encode())
        tar.images += 1
        if tar.images == IMAGES_PER_TAR or tar.buffer.tell() >= BYTES_PER_TAR:
            self._write(image.split)

    def _write(self, split: Split) -> None:
        number = self._written.get(split, 0)
        self._out.write(f"{split}-{number:06d}.tar", self._open.pop(split).close())
        self._written[split] = number + 1

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            for split in list(self._open):
                self._write(split)
            classes = {"names": ["background", *self._finished.classes], "void": self._finished.void}
            if self._finished.own_ids:
                classes["labels"] = [0, *self._finished.ids]
            self._out.write("classes.json", json.dumps(classes, ensure_ascii=False, indent=1).encode())
