"""The maps of a shard as they are stored: a tensor for each image, and a table of what is known of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import count, takewhile
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from pnp_core.data import ClassMaps, Sample
from pnp_core.storage.completion import StageFolder
from pnp_core.storage.run_folder import table_bytes

STAGE = "salience"
"""The stage that stores them."""
IMAGE_COLUMNS = [
    ("key", pa.string()),
    ("source", pa.string()),
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("classes", pa.list_(pa.int32())),
]
"""What every table of maps says of an image."""


def image_row(sample: Sample, maps: ClassMaps) -> dict[str, Any]:
    """An image as a row of `IMAGE_COLUMNS`."""
    return {
        "key": sample.key,
        "source": sample.source,
        "height": maps.height,
        "width": maps.width,
        "classes": list(maps.classes),
    }


_SCHEMA = pa.schema(
    [
        *IMAGE_COLUMNS,
        ("itm", pa.list_(pa.float32())),
        ("scores", pa.list_(pa.float32())),
        ("chosen", pa.string()),
        ("notes", pa.list_(pa.string())),
    ]
)


def class_map_files(images: Iterable[tuple[Sample, ClassMaps]]) -> dict[str, bytes]:
    """Some images' maps as the files of a shard: extension -> content.

    The tensor of an image has its key for name; those of its parts have their number behind it.
    """
    tensors: dict[str, np.ndarray] = {}
    rows = []
    for sample, maps in images:
        tensors |= _tensors(sample.key, maps)
        rows.append(
            {
                **image_row(sample, maps),
                "itm": None if maps.itm is None else maps.itm.tolist(),
                "scores": list(maps.scores),
                "chosen": maps.chosen,
                "notes": list(maps.notes),
            }
        )
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    return {"safetensors": save_tensors(tensors), "parquet": table_bytes(table)}


def _tensors(name: str, maps: ClassMaps) -> dict[str, np.ndarray]:
    tensors = {name: np.ascontiguousarray(maps.maps)}
    if maps.of:
        tensors[_of(name)] = np.array(maps.of, dtype=np.int32)
    for number, part in enumerate(maps.parts):
        tensors |= _tensors(_part(name, number), part)
        if part.itm is not None:
            tensors[_match(name, number)] = np.ascontiguousarray(part.itm)
    return tensors


def read_class_maps(folder: StageFolder, shard: str) -> dict[str, ClassMaps]:
    """The stored maps of a shard, by key.

    Raises:
        CorruptRunError: they are missing or damaged.
    """
    tensors = load_tensors(folder.read(shard, "safetensors"))
    rows = folder.read_table(shard, "parquet").to_pylist()
    return {row["key"]: _with_parts(_without_parts(row, tensors), row["key"], tensors) for row in rows}


def _without_parts(row: dict[str, Any], tensors: Mapping[str, np.ndarray]) -> ClassMaps:
    return ClassMaps(
        maps=tensors[row["key"]],
        classes=tuple(row["classes"]),
        itm=None if row["itm"] is None else np.array(row["itm"], dtype=np.float32),
        height=row["height"],
        width=row["width"],
        scores=tuple(row["scores"]),
        chosen=row["chosen"],
        notes=tuple(row["notes"]),
        of=_labels(row["key"], tensors),
    )


def _labels(name: str, tensors: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    return tuple(tensors[_of(name)].tolist()) if _of(name) in tensors else ()


def _with_parts(maps: ClassMaps, key: str, tensors: Mapping[str, np.ndarray]) -> ClassMaps:
    numbers = takewhile(lambda number: _part(key, number) in tensors, count())
    parts = [_read_part(maps, key, number, tensors) for number in numbers]
    return replace(maps, parts=tuple(parts)) if parts else maps


def _read_part(maps: ClassMaps, key: str, number: int, tensors: Mapping[str, np.ndarray]) -> ClassMaps:
    name = _part(key, number)
    part = replace(maps, maps=tensors[name], itm=tensors.get(_match(key, number)), of=_labels(name, tensors))
    return _with_parts(part, name, tensors)


def _part(key: str, number: int) -> str:
    """Keys hold no slash, so that this is no image's."""
    return f"{key}/{number}"


def _match(key: str, number: int) -> str:
    return f"{_part(key, number)}/match"


def _of(name: str) -> str:
    """Where the labels of an image's or a part's maps are."""
    return f"{name}/of"
