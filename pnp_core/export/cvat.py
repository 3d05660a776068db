"""CVAT for images 1.1: one XML file of masks, which a task or project of CVAT takes as annotations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import TracebackType
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from pnp_core.export.base import base_name, upright_jpeg
from pnp_core.export.labelled import Finished, Labelled
from pnp_core.export.regions import Region
from pnp_core.storage.run_folder import RunFolder
from pnp_core.text.visible import visible


class Cvat:
    """`annotations.xml`, `labels.json` for the raw editor of a task's labels, and `images/NAME.jpg` if wanted.

    CVAT finds pictures by their names: those of the task are NAME.jpg, or the pictures' own file names where they are
    not written here. A mask is given by the lengths of its runs in the box around it. Confidence has no place there.
    """

    takes = frozenset({"instances"})

    def __init__(self, out: RunFolder, finished: Finished, images: bool) -> None:
        self._out, self._images, self._number = out, images, 0
        # Characters that XML has no way to write are spelled out.
        self._labels = {i: (visible(name), bytes(colour).hex()) for i, (name, colour) in finished.named.items()}

    def __enter__(self) -> Cvat:
        self._stream = self._out.stream("annotations.xml")
        self._file = self._stream.__enter__()
        self._say('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta>\n<task>\n')
        self._say("<name>pnp-ovss</name>\n<mode>annotation</mode>\n<labels>\n")
        for name, colour in self._of_classes():
            self._say(f"<label><name>{escape(name)}</name><color>#{colour}</color><type>mask</type>")
            self._say("<attributes></attributes></label>\n")
        self._say("</labels>\n</task>\n</meta>\n")
        return self

    def _of_classes(self) -> list[tuple[str, str]]:
        return [named for label, named in self._labels.items() if label]

    def _say(self, text: str) -> None:
        self._file.write(text.encode())

    def add(self, image: Labelled) -> None:
        """Write one."""
        height, width = image.labels.shape
        file = f"{image.name}.jpg" if self._images else visible(base_name(image.source))
        self._say(f'<image id="{self._number}" name={quoteattr(file)} width="{width}" height="{height}">\n')
        for region in image.regions():
            self._say(_mask(region, self._labels[region.label][0]))
        self._say("</image>\n")
        self._number += 1
        if self._images:
            self._out.write(f"images/{file}", upright_jpeg(image.name, image.sample.image))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._say("</annotations>\n")
        self._stream.__exit__(kind, value, trace)
        if kind is None:
            labels = [
                {"name": name, "color": f"#{c}", "type": "mask", "attributes": []} for name, c in self._of_classes()
            ]
            self._out.write("labels.json", json.dumps(labels, ensure_ascii=False, indent=1).encode())


def _mask(region: Region, name: str) -> str:
    height, width = region.inside.shape
    runs = ", ".join(map(str, run_lengths(region.inside)))
    return (
        f'<mask label={quoteattr(name)} source="auto" occluded="0" rle="{runs}" left="{region.left}" '
        f'top="{region.top}" width="{width}" height="{height}" z_order="0"></mask>\n'
    )


def run_lengths(inside: np.ndarray) -> Iterator[int]:
    """Lengths of runs of a mask (h, w), row by row and over their ends, in turns outside and inside.

    >>> list(run_lengths(np.array([[True, True], [False, True]])))
    [0, 2, 1, 1]
    """
    flat = inside.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    if flat[0]:
        yield 0
    yield from np.diff(ends, prepend=0).tolist()
