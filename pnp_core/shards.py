"""Pack samples into webdataset tars and read them back; never decodes, never unpickles."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
from webdataset.tariterators import group_by_keys, tar_file_iterator
from webdataset.writer import TarWriter

from pnp_core.errors import CorruptRunError, OutputError, SourceError
from pnp_core.images import IMAGE_EXTENSIONS
from pnp_core.records import Sample, ShardRef
from pnp_core.store import RunFolder, discard_shards, sha256, table_bytes

INDEX = "shards/index.parquet"
_LABEL_MAP = "seg.png"
_META = "json"
_INDEX_SCHEMA = pa.schema(
    [("shard", pa.string()), ("samples", pa.int64()), ("bytes", pa.int64()), ("sha256", pa.string())]
)


def shard_file(name: str) -> str:
    """Path of a shard's tar, relative to the run folder."""
    return f"shards/{name}.tar"


def pack(samples: Iterable[Sample]) -> bytes:
    """Samples as the bytes of a webdataset tar: the same samples always give the same bytes."""
    buffer = io.BytesIO()
    with TarWriter(buffer, encoder=False, mtime=0, user="pnp", group="pnp", format="PAX_FORMAT") as tar:
        for sample in samples:
            meta: dict[str, Any] = {"source": sample.source, "extension": sample.extension}
            if sample.classes is not None:
                meta["classes"] = list(sample.classes)
            if sample.fault is not None:
                meta["fault"] = sample.fault
            record = {"__key__": sample.key, f"img.{sample.extension}": sample.image}
            if sample.label_map is not None:
                record[_LABEL_MAP] = sample.label_map
            record[_META] = json.dumps(meta, sort_keys=True).encode()
            tar.write(record)
    return buffer.getvalue()


def read_records(data: bytes) -> Iterator[dict[str, Any]]:
    """The raw files of a webdataset tar, grouped by key: ``__key__`` and extension -> bytes."""
    stream: Any = io.BytesIO(data)
    yield from group_by_keys({**file, "__url__": ""} for file in tar_file_iterator(stream))


def unpack(data: bytes) -> Iterator[Sample]:
    """The samples of a tar written by `pack`, in order."""
    for record in read_records(data):
        meta = json.loads(record[_META])
        yield Sample(
            key=record["__key__"],
            image=record[f"img.{meta['extension']}"],
            extension=meta["extension"],
            source=meta["source"],
            label_map=record.get(_LABEL_MAP),
            classes=tuple(meta["classes"]) if "classes" in meta else None,
            fault=meta.get("fault"),
        )


def foreign_pictures(data: bytes) -> Iterator[tuple[str, str, bytes | None]]:
    """Key, ending and bytes of each picture in anybody's webdataset tar; None where a record has none.

    Raises:
        tarfile.TarError: the bytes are no tar, or it is cut short.
        ValueError: a record holds two files of the same name.
    """
    for record in read_records(data):
        ending = next((e for e in record if e.split(".")[-1] in IMAGE_EXTENSIONS), None)
        yield record["__key__"], (ending or "none").split(".")[-1], record[ending] if ending else None


def read_shard(run: RunFolder, shard: ShardRef) -> Iterator[Sample]:
    """The samples of one shard of a run.

    Raises:
        CorruptRunError: the tar is not the one in the index.
    """
    data = run.read(shard_file(shard.name))
    if sha256(data) != shard.sha256:
        raise CorruptRunError(
            f"'{run.path(shard_file(shard.name))}' changed since it was written; delete the run folder"
        )
    return unpack(data)


def even_sizes(samples: int, shards: int) -> list[int]:
    """Shard sizes that differ by at most one, largest first.

    >>> even_sizes(10, 4)
    [3, 3, 2, 2]
    """
    shards = min(samples, shards)
    small, larger = divmod(samples, shards)
    return [small + 1] * larger + [small] * (shards - larger)


def read_index(run: RunFolder, identity: str, digest: str) -> list[ShardRef] | None:
    """The shards of a run, or None when they are missing or its source has changed.

    Args:
        identity: what the pictures are, for people; another one in the folder is an error.
        digest: of the source's content; another one means the shards must be written again.

    Raises:
        OutputError: the folder holds a run of another source.
    """
    if not run.exists(INDEX):
        return None
    table = run.read_table(INDEX)
    metadata = table.schema.metadata or {}
    found = metadata.get(b"identity", b"").decode()
    if found != identity:
        raise OutputError(
            f"'{run.url}' holds a run of {found or 'something else'}, not of {identity}; choose another --out"
        )
    if metadata.get(b"digest", b"").decode() != digest:
        return None
    rows = table.to_pylist()
    return [ShardRef(r["shard"], r["samples"], r["bytes"], r["sha256"]) for r in rows]


def write_shards(
    run: RunFolder, samples: Iterable[Sample], sizes: Iterable[int], identity: str, digest: str
) -> list[ShardRef]:
    """Write samples as numbered tars, then the index, which makes them count.

    Memory is bounded by one shard.

    Args:
        sizes: number of samples per shard; may be endless.

    Raises:
        SourceError: there was no sample at all.
    """
    remaining = iter(samples)
    shards: list[ShardRef] = []
    for size in sizes:
        batch = list(islice(remaining, size))
        if not batch:
            break
        data = pack(batch)
        name = f"{len(shards):06d}"
        run.write(shard_file(name), data)
        shards.append(ShardRef(name, len(batch), len(data), sha256(data)))
    if not shards:
        raise SourceError(f"no pictures found in {identity}")
    columns = [
        [s.name for s in shards], [s.samples for s in shards], [s.bytes for s in shards], [s.sha256 for s in shards],
    ]  # fmt: skip
    _discard_changed(run, shards)
    schema = _INDEX_SCHEMA.with_metadata({"identity": identity, "digest": digest})
    run.write(INDEX, table_bytes(pa.table(columns, schema=schema)))
    return shards


def _discard_changed(run: RunFolder, shards: list[ShardRef]) -> None:
    """Delete what an earlier state of the source left: surplus tars, and outputs of changed shards."""
    before = {r["shard"]: r["sha256"] for r in run.read_table(INDEX).to_pylist()} if run.exists(INDEX) else {}
    discard_shards(run, keep={s.name for s in shards if before.get(s.name) == s.sha256})
    names = {s.name for s in shards}
    for surplus in before.keys() - names:
        run.remove(shard_file(surplus))
