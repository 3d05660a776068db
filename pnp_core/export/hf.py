"""A folder that Hugging Face `datasets` loads: Parquet files with pictures, masks and class names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import pyarrow as pa
import yaml

from pnp_core.export.labelled import SPLITS, Finished, Labelled, Split
from pnp_core.storage.run_folder import RunFolder, table_bytes

IMAGES_PER_FILE = 256
BYTES_PER_FILE = 256 * 2**20
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_STRING = {"dtype": "string", "_type": "Value"}
_SPLITS: dict[Split, str] = {"train": "train", "val": "validation"}
"""As that library calls them."""


class _Waiting:
    """Rows of a split that wait for its next file."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.bytes = self.files = 0


class HuggingFace:
    """`data/train-00000.parquet` ... and `README.md`; `load_dataset(FOLDER)` reads them.

    Pictures are as they came: the library turns those whose EXIF says so, and the masks are upright. The column
    `labels` has the classes of a mask, and their names in its features: `ClassLabel` of background and all classes,
    which counts them; what they are in masks, where they have ids of their own, is in README.md.
    """

    takes = frozenset({"val"})

    def __init__(self, out: RunFolder, finished: Finished, images: bool) -> None:
        self._out, self._finished, self._images = out, finished, images
        self._waiting: dict[Split, _Waiting] = {split: _Waiting() for split in SPLITS}
        columns = [("image", _IMAGE)] if images else []
        columns += [("mask", _IMAGE), ("name", pa.string()), ("source", pa.string()), ("labels", pa.list_(pa.int64()))]
        shown = {"_type": "Image"}
        features: dict[str, Any] = {"image": shown} if images else {}
        label = {"_type": "ClassLabel", "names": _unlike(("background", *finished.classes))}
        features |= {"mask": shown, "name": _STRING, "source": _STRING, "labels": {"_type": "List", "feature": label}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        self._schema = pa.schema(columns, metadata=metadata)

    def __enter__(self) -> HuggingFace:
        return self

    def add(self, image: Labelled) -> None:
        """Take one; a file is written when it is full."""
        sample, waiting = image.sample, self._waiting[image.split]
        mask = image.mask_png
        row: dict[str, Any] = {"mask": {"bytes": mask, "path": f"{image.name}.png"}, "name": image.name}
        row |= {"source": image.source, "labels": [self._finished.places[label] for label in image.classes]}
        if self._images:
            row["image"] = {"bytes": sample.image, "path": f"{image.name}.{sample.extension}"}
        waiting.rows.append(row)
        waiting.bytes += len(mask) + len(sample.image)
        if len(waiting.rows) == IMAGES_PER_FILE or waiting.bytes >= BYTES_PER_FILE:
            self._write(image.split)

    def _write(self, split: Split) -> None:
        waiting = self._waiting[split]
        table = pa.Table.from_pylist(waiting.rows, schema=self._schema)
        self._out.write(f"data/{_SPLITS[split]}-{waiting.files:05d}.parquet", table_bytes(table))
        waiting.rows, waiting.bytes, waiting.files = [], 0, waiting.files + 1

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            for split, waiting in self._waiting.items():
                if waiting.rows or (split == "train" and not waiting.files):
                    self._write(split)
            self._out.write("README.md", self._card().encode())

    def _card(self) -> str:
        splits = [_SPLITS[split] for split, waiting in self._waiting.items() if waiting.files]
        files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
        head = {"task_categories": ["image-segmentation"], "configs": [{"config_name": "default", "data_files": files}]}
        classes = ((label, name) for label, (name, _) in self._finished.named.items())
        names = "\n".join(f"- {label}: {json.dumps(name)}" for label, name in classes)
        settings = yaml.safe_dump(head, sort_keys=False)
        void = f"- {self._finished.void}: void"
        return f"---\n{settings}---\nPseudo-labels made by pnp-ovss. Values of `mask`:\n\n{names}\n{void}\n"


def _unlike(names: Sequence[str]) -> list[str]:
    """Names with their numbers where another one before is the same: features allow no name twice.

    >>> _unlike(["background", "bat", "bat"])
    ['background', 'bat', 'bat (2)']
    """
    first = {name: label for label, name in reversed(list(enumerate(names)))}
    return [name if first[name] == label else f"{name} ({label})" for label, name in enumerate(names)]
