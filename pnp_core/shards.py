"""Pack samples into webdataset tars and read them back; never decodes, never unpickles."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from pnp_core.completion import StageFolder
from pnp_core.errors import CorruptRunError, DamagedError, ForeignFilesError, OutputError, SourceError
from pnp_core.files import MARK, Files
from pnp_core.first_bytes import only_pictures
from pnp_core.ledger import LEDGER, Ledger, claim_folders, forget_files
from pnp_core.records import Quarantined, Sample, ShardRef, StageResult
from pnp_core.seals import sealed, sha256, unsealed
from pnp_core.store import RunFolder, table_bytes, table_of

INDEX = "shards/index.parquet"
MAX_SHARD_BYTES = 256 * 2**20
"""A shard is closed when its pictures have more bytes, however few they are: it is held in memory whole."""
_PREVIOUS = "shards/previous.parquet"
_RECORD = f"{MARK}/shards.json"
"""Written before the index: with it a damaged index is known, and rebuilt."""
_DAMAGE_NOTES = f"{MARK}/damaged"
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
    from webdataset.writer import TarWriter  # imports torch, which takes seconds

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
    from webdataset.tariterators import group_by_keys, tar_file_iterator

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
        DamagedError: the tar is not the one in the index; the next run writes it again.
    """
    file = shard_file(shard.name)
    data = run.get(file)
    if sha256(data) != shard.sha256:
        with suppress(OutputError):  # who reads may not be allowed to write
            run.put(_damage_note(shard.name), b"")
        raise DamagedError.at(run.path(file), f"it is not the tar that was written as shard {shard.name}")
    return unpack(data)


def _damage_note(shard: str) -> str:
    """File that says a tar was found damaged: the next run does not take it for whole by its size."""
    return f"{_DAMAGE_NOTES}/{shard}"


def set_shard_aside(
    folder: StageFolder, shard: ShardRef, reason: str, before: StageFolder | None = None
) -> StageResult:
    """Quarantine every picture of a shard that a stage gave up.

    Args:
        before: folder of the stage before, whose quarantine counts already.
    """
    gone = {picture.key for picture in before.quarantined(shard.name)} if before else set()
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
    """The shards of a run, or None when they are missing or damaged, or its source has changed.

    Args:
        identity: what the pictures are, for people; another one in the folder is an error.
        digest: of the source's content; another one means the shards must be written again.

    Raises:
        OutputError: the folder holds a run of another source.
    """
    index = _index(run, mend=True) or _previous(run)
    there = index.identity if index else (_sealed_index(run) or {}).get("identity", identity)
    if there != identity:
        raise ForeignFilesError(
            f"'{run.url}' holds a run of {there or 'something else'}, not of {identity}; choose another --out"
        )
    whole = index and index.complete and index.digest == digest and _tars_there(run, index)
    return list(index.shards) if index and whole else None


def read_refs(run: RunFolder, rebuild: bool = True) -> list[ShardRef]:
    """The shards of a run, whatever they are of.

    Args:
        rebuild: the index from the tars, when it is damaged.

    Raises:
        CorruptRunError: there is no index, or it is damaged and cannot be rebuilt.
    """
    if not run.exists(INDEX) and _sealed_index(run) is None:
        raise CorruptRunError(f"'{run.path(INDEX)}' is missing; the command that made it makes it again")
    if (index := _index(run, rebuild)) is None:
        raise DamagedError.at(run.path(INDEX))
    return list(index.shards)


@dataclass(frozen=True)
class _Index:
    """What an index says.

    Attributes:
        complete: it is the index; otherwise the one before, whose tars are being written over.
    """

    identity: str
    digest: str
    shards: tuple[ShardRef, ...]
    complete: bool = True

    @classmethod
    def of(cls, data: bytes, complete: bool = True) -> _Index | None:
        """The index in some bytes, None when they are none."""
        try:
            table = table_of(data)
            metadata = {name: text.decode() for name, text in (table.schema.metadata or {}).items()}
            rows = [ShardRef(r["shard"], r["samples"], r["bytes"], r["sha256"]) for r in table.to_pylist()]
            return cls(metadata[b"identity"], metadata[b"digest"], tuple(rows), complete)
        except (pa.ArrowException, KeyError, ValueError):  # whatever flipped bits make of Parquet
            return None

    def as_bytes(self) -> bytes:
        """The index as Parquet."""
        shards = self.shards
        columns = [
            [s.name for s in shards], [s.samples for s in shards], [s.bytes for s in shards],
            [s.sha256 for s in shards],
        ]  # fmt: skip
        schema = _INDEX_SCHEMA.with_metadata({"identity": self.identity, "digest": self.digest})
        return table_bytes(pa.table(columns, schema=schema))


def _index(run: RunFolder, rebuild: bool = True, mend: bool = False) -> _Index | None:
    """The index; rebuilt from the tars when it is damaged; None when there is none, or that cannot be done.

    Args:
        mend: write what was rebuilt.
    """
    record = _sealed_index(run)
    data = run.find(INDEX)
    if record is None:  # of a version that wrote no such record
        return _Index.of(data) if data else None
    if data and sha256(data) == record["sha256"]:
        return _Index.of(data)
    if not rebuild:
        return None
    tars = [(name, run.find(shard_file(name))) for name in map(_shard_name, range(record["shards"]))]
    try:
        refs = [ShardRef(name, len(list(unpack(tar))), len(tar), sha256(tar)) for name, tar in tars if tar]
    except (ValueError, KeyError, OSError, tarfile.TarError):  # of a damaged tar
        return None
    rebuilt = _Index(record["identity"], record["digest"], tuple(refs))
    data = rebuilt.as_bytes()
    if sha256(data) != record["sha256"]:
        return None
    if mend:
        run.put(INDEX, data)
    return rebuilt


def _sealed_index(run: Files) -> dict[str, Any] | None:
    """What was written down of the index: what it is of, number of tars, digest."""
    return unsealed(run.find(_RECORD) or b"")


def holds_shards(place: Files) -> bool:
    """Whether there is an index of shards in a folder, or there was one when they were last written."""
    found = (place.find(file) for file in (INDEX, _PREVIOUS))
    return _sealed_index(place) is not None or any(data and _Index.of(data) for data in found)


def _previous(run: RunFolder) -> _Index | None:
    """The index of the tars that are being written over, None when there is none."""
    data = run.find(_PREVIOUS)
    return _Index.of(data, complete=False) if data else None


def _tars_there(run: RunFolder, index: _Index) -> bool:
    """Whether all tars have their size, and none was found damaged."""
    if run.exists(_DAMAGE_NOTES) and run.names(_DAMAGE_NOTES):
        return False
    return all(run.size(shard_file(shard.name)) == shard.bytes for shard in index.shards)


def _shard_name(number: int) -> str:
    return f"{number:06d}"


def write_shards(
    run: RunFolder, samples: Iterable[Sample], sizes: Iterable[int], identity: str, digest: str
) -> list[ShardRef]:
    """Write samples as numbered tars, then the index, which makes them count.

    What is no picture by its first bytes is not stored, only why. Memory is bounded by one shard, which is closed early
    when its pictures exceed `MAX_SHARD_BYTES`. What was made of shards that come out as they were is kept.

    Args:
        sizes: number of samples per shard; may be endless.

    Raises:
        SourceError: there was no sample at all.
        ForeignFilesError: the folder for tars is somebody else's.
    """
    claim_folders(run, ["shards"])
    # While tars change there is no index: a run killed here starts sharding anew, whichever command
    # comes next. The old one is kept aside to know which shards came out the same.
    if index := _index(run):
        run.put(_PREVIOUS, index.as_bytes())
    for file in (INDEX, _RECORD):
        run.delete(file)
    before = _previous(run)
    shards: list[ShardRef] = []
    for batch in _batches(only_pictures(samples), sizes):
        data = pack(batch)
        name = _shard_name(len(shards))
        run.put(shard_file(name), data)
        shards.append(ShardRef(name, len(batch), len(data), sha256(data)))
    if not shards:
        raise SourceError(f"no pictures found in {identity}")
    discard_outputs(run, before.shards if before else (), keep=shards)
    for surplus in {s.name for s in before.shards} - {s.name for s in shards} if before else ():
        run.delete(shard_file(surplus))
    for note in run.names(_DAMAGE_NOTES) if run.exists(_DAMAGE_NOTES) else ():
        run.delete(note)
    index = _Index(identity, digest, tuple(shards))
    data = index.as_bytes()
    record = {"identity": identity, "digest": digest, "shards": len(shards), "sha256": sha256(data)}
    run.put(_RECORD, sealed(record))
    run.put(INDEX, data)
    run.delete(_PREVIOUS)
    return shards


def discard_outputs(run: RunFolder, before: Iterable[ShardRef], keep: Iterable[ShardRef]) -> None:
    """Delete what the stages made of shards that are gone or have other pictures now, all by the names in our records.

    Evaluations go when anything changes, those of class subsets too: they are of the pictures that were there.

    Args:
        before: the shards that there were.
        keep: the shards that there are; of those that were the same before all is kept.
    """
    before, keep = set(before), set(keep)
    if before == keep:
        return
    gone = sorted(before - keep, key=lambda shard: shard.name)
    ledger = Ledger.read(run)
    for place in sorted(ledger.folders):
        if place.count("/") == 1:
            for shard in gone:
                StageFolder(run, *place.split("/")).discard(shard.name)
    forget_files(run, [path for path in ledger.files if path.startswith("evaluations/")])
    for mark in run.glob(f"subsets/*/{LEDGER}"):
        subset = RunFolder(run.below(mark.removesuffix(f"/{LEDGER}")))
        forget_files(subset, [path for path in Ledger.read(subset).files if path.startswith("evaluations/")])


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
