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
from pnp_core.first_bytes import only_pictures
from pnp_core.records import Quarantined, Sample, ShardRef, StageResult
from pnp_core.store import RunFolder, StageFolder, discard_shards, sha256, table_bytes

INDEX = "shards/index.parquet"
MAX_SHARD_BYTES = 256 * 2**20
"""A shard is closed when its pictures have more bytes, however few they are: it is held in memory whole."""
_PREVIOUS = "shards/previous.parquet"
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
            if sample.name:
                meta["name"] = sample.name
            record = {"__key__": sample.key, f"img.{sample.extension}": sample.image}
            if sample.label_map is not None:
                record[_LABEL_MAP] = sample.label_map
            record[_META] = json.dumps(meta, sort_keys=True).encode()
            tar.write(record)
    return buffer.getvalue()


def read_records(data: bytes) -> Iterator[dict[str, Any]]:
    """The raw files of one of our tars, grouped by key: ``__key__`` and extension -> bytes."""
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
            name=meta.get("name", ""),
        )


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


def set_shard_aside(
    folder: StageFolder, shard: ShardRef, reason: str, before: StageFolder | None = None
) -> StageResult:
    """Quarantine every picture of a shard that a stage gave up.

    Args:
        before: folder of the stage before, whose quarantine counts already.
    """
    gone: set[str] = set()
    if before and folder.run.exists(before.quarantine_file(shard.name)):
        gone = set(folder.run.read_table(before.quarantine_file(shard.name))["key"].to_pylist())
    pictures = [
        Quarantined(sample.key, sample.source, folder.stage, reason)
        for sample in read_shard(folder.run, shard)
        if sample.key not in gone
    ]
    return folder.give_up(shard.name, pictures)


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
    present = next((file for file in (INDEX, _PREVIOUS) if run.exists(file)), None)
    if present is None:
        return None
    table = run.read_table(present)
    metadata = table.schema.metadata or {}
    found = metadata.get(b"identity", b"").decode()
    if found != identity:
        raise OutputError(
            f"'{run.url}' holds a run of {found or 'something else'}, not of {identity}; choose another --out"
        )
    if present == _PREVIOUS or metadata.get(b"digest", b"").decode() != digest:
        return None
    return _refs(table)


def read_refs(run: RunFolder) -> list[ShardRef]:
    """The shards of a run, whatever they are of.

    Raises:
        CorruptRunError: there is no index.
    """
    return _refs(run.read_table(INDEX))


def _refs(table: pa.Table) -> list[ShardRef]:
    return [ShardRef(r["shard"], r["samples"], r["bytes"], r["sha256"]) for r in table.to_pylist()]


def write_shards(
    run: RunFolder, samples: Iterable[Sample], sizes: Iterable[int], identity: str, digest: str
) -> list[ShardRef]:
    """Write samples as numbered tars, then the index, which makes them count.

    What is no picture by its first bytes is not stored, only why. Memory is bounded by one shard, which is closed early
    when its pictures exceed `MAX_SHARD_BYTES`.

    Args:
        sizes: number of samples per shard; may be endless.

    Raises:
        SourceError: there was no sample at all.
    """
    # While tars change there is no index: a run killed here starts sharding anew, whichever command
    # comes next. The old one is kept aside to know which shards came out the same.
    if run.exists(INDEX):
        run.write(_PREVIOUS, run.read(INDEX))
        run.remove(INDEX)
    before = _digests(run, _PREVIOUS)
    shards: list[ShardRef] = []
    for batch in _batches(only_pictures(samples), sizes):
        data = pack(batch)
        name = f"{len(shards):06d}"
        run.write(shard_file(name), data)
        shards.append(ShardRef(name, len(batch), len(data), sha256(data)))
    if not shards:
        raise SourceError(f"no pictures found in {identity}")
    discard_shards(run, keep={s.name for s in shards if before.get(s.name) == s.sha256})
    for surplus in before.keys() - {s.name for s in shards}:
        run.remove(shard_file(surplus))
    columns = [
        [s.name for s in shards], [s.samples for s in shards], [s.bytes for s in shards], [s.sha256 for s in shards],
    ]  # fmt: skip
    schema = _INDEX_SCHEMA.with_metadata({"identity": identity, "digest": digest})
    run.write(INDEX, table_bytes(pa.table(columns, schema=schema)))
    run.remove(_PREVIOUS)
    return shards


def _batches(samples: Iterable[Sample], sizes: Iterable[int]) -> Iterator[list[Sample]]:
    """Samples of one shard after the other."""
    remaining = iter(samples)
    for size in sizes:
        batch: list[Sample] = []
        taken = held = 0
        for sample in islice(remaining, size):
            batch.append(sample)
            taken, held = taken + 1, held + len(sample.image)
            if held > MAX_SHARD_BYTES:
                yield batch
                batch, held = [], 0
        if batch:
            yield batch
        if taken < size:
            return


def _digests(run: RunFolder, index: str) -> dict[str, str]:
    """Name -> sha256 of the shards in an index; empty when there is none."""
    return {r["shard"]: r["sha256"] for r in run.read_table(index).to_pylist()} if run.exists(index) else {}
