"""A folder that Hugging Face `datasets` loads: Parquet files with pictures, masks and class names."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any

import pyarrow as pa
import yaml

from pnp_core.export.labelled import Finished, Labelled
from pnp_core.storage.run_folder import RunFolder, table_bytes

IMAGES_PER_FILE = 256
BYTES_PER_FILE = 256 * 2**20
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_STRING, _INT = {"dtype": "string", "_type": "Value"}, {"dtype": "int32", "_type": "Value"}


class HuggingFace:
    """`data/train-00000.parquet` ... and `README.md`; `load_dataset(FOLDER)` reads them.

    Pictures are as they came: the library turns those whose EXIF says so, and the masks are upright.
    """

    def __init__(self, out: RunFolder, finished: Finished, images: bool) -> None:
        self._out, self._finished, self._images = out, finished, images
        self._rows: list[dict[str, Any]] = []
        self._bytes = self._files = 0
        columns = [("image", _IMAGE)] if images else []
        columns += [("mask", _IMAGE), ("name", pa.string()), ("source", pa.string()), ("labels", pa.list_(pa.int32()))]
        shown = {"_type": "Image"}
        features: dict[str, Any] = {"image": shown} if images else {}
        features |= {"mask": shown, "name": _STRING, "source": _STRING, "labels": {"_type": "List", "feature": _INT}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        self._schema = pa.schema(columns, metadata=metadata)

    def __enter__(self) -> HuggingFace:
        return self

    def add(self, image: Labelled) -> None:
        """Take one; a file is written when it is full."""
        sample = image.sample
        mask = image.mask_png
        row: dict[str, Any] = {"mask": {"bytes": mask, "path": f"{image.name}.png"}, "name": image.name}
        row |= {"source": image.source, "labels": list(image.classes)}
        if self._images:
            row["image"] = {"bytes": sample.image, "path": f"{image.name}.{sample.extension}"}
        self._rows.append(row)
        self._bytes += len(mask) + len(sample.image)
        if len(self._rows) == IMAGES_PER_FILE or self._bytes >= BYTES_PER_FILE:
            self._write()

    def _write(self) -> None:
        if self._rows or not self._files:
            table = pa.Table.from_pylist(self._rows, schema=self._schema)
            self._out.write(f"data/train-{self._files:05d}.parquet", table_bytes(table))
            self._rows, self._bytes, self._files = [], 0, self._files + 1

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write()
            self._out.write("README.md", self._card().encode())

    def _card(self) -> str:
        files = [{"split": "train", "path": "data/train-*.parquet"}]
        head = {"task_categories": ["image-segmentation"], "configs": [{"config_name": "default", "data_files": files}]}
        labels = enumerate(("background", *self._finished.classes))
        names = "\n".join(f"- {label}: {json.dumps(name)}" for label, name in labels)
        settings, void = yaml.safe_dump(head, sort_keys=False), self._finished.void
        return f"---\n{settings}---\nPseudo-labels made by pnp-ovss. Values of `mask`:\n\n{names}\n- {void}: void\n"
