"""Pack samples into webdataset tars and read them back; never decodes, never unpickles."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass
from itertools import groupby, islice
from typing import Any, Literal

import pyarrow as pa

from pnp_core.data import Quarantined, Sample, ShardRef, StageResult
from pnp_core.errors import CorruptRunError, DamagedError, ForeignFilesError, OutputError, SourceError
from pnp_core.storage.completion import StageFolder
from pnp_core.storage.files import MARK, Files
from pnp_core.storage.first_bytes import only_images
from pnp_core.storage.ledger import LEDGER, Ledger, claim_folders, forget_files
from pnp_core.storage.run_folder import NO_TABLE, RunFolder, table_bytes, table_of
from pnp_core.storage.seals import sealed, sha256, unsealed

INDEX = "shards/index.parquet"
MAX_SHARD_BYTES = 256 * 2**20
"""A shard is closed when its pictures have more bytes, however few they are: it is held in memory whole."""
_PREVIOUS = "shards/previous.parquet"
_RECORD = f"{MARK}/shards.json"
"""Written before the index, and holds the same: a damaged one is known, and written again."""
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
            if sample.notes:
                meta["notes"] = list(sample.notes)
            record = {"__key__": sample.key, f"img.{sample.extension}": sample.image}
            if sample.label_map is not None:
                record[_LABEL_MAP] = sample.label_map
            record[_META] = json.dumps(meta, sort_keys=True).encode()
            tar.write(record)
    return buffer.getvalue()


def _read_records(data: bytes) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The raw files of one of our tars: a key, which has no dot, and extension -> bytes, in the order of the tar.

    The library that wrote them reads them too, but imports torch for it, which export and verify do not need.
    """
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for key, members in groupby(tar, key=lambda member: member.name.partition(".")[0]):
            files = {member.name.partition(".")[2]: tar.extractfile(member) for member in members}
            yield key, {extension: file.read() for extension, file in files.items() if file}


def unpack(data: bytes) -> Iterator[Sample]:
    """The samples of a tar written by `pack`, in order."""
    for key, record in _read_records(data):
        meta = json.loads(record[_META])
        yield Sample(
            key=key,
            image=record[f"img.{meta['extension']}"],
            extension=meta["extension"],
            source=meta["source"],
            label_map=record.get(_LABEL_MAP),
            classes=tuple(meta["classes"]) if "classes" in meta else None,
            fault=meta.get("fault"),
            name=meta.get("name", ""),
            notes=tuple(meta.get("notes", ())),
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
    gone = {image.key for image in before.quarantined(shard.name)} if before else set()
    images = [
        Quarantined(sample.key, sample.source, folder.stage, reason)
        for sample in read_shard(folder.run, shard)
        if sample.key not in gone
    ]
    return folder.mark_failed(shard.name, images)


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
    index = _mended(run) or _previous(run)
    held = index.identity if index else (_sealed_index(run) or {}).get("identity", identity)
    if held != identity:
        raise ForeignFilesError(
            f"'{run.url}' holds a run of {held or 'something else'}, not of {identity}; choose another --out"
        )
    whole = index and index.complete and index.digest == digest and _tars_there(run, index)
    return list(index.shards) if index and whole else None


def read_refs(run: RunFolder) -> list[ShardRef]:
    """The shards of a run, whatever they are of.

    Raises:
        CorruptRunError: there is no index, or it is damaged.
    """
    return list(_known_index(run).shards)


def read_identity(run: RunFolder) -> str:
    """What the pictures of a run are, as its source or dataset says it.

    Raises:
        CorruptRunError: there is no index, or it is damaged.
    """
    return _known_index(run).identity


def _known_index(run: RunFolder) -> _Index:
    if not run.exists(INDEX) and _sealed_index(run) is None:
        raise CorruptRunError(f"'{run.path(INDEX)}' is missing; the command that made it makes it again")
    if (index := _index(run)) is None:
        raise DamagedError.at(run.path(INDEX))
    return index


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
        except (*NO_TABLE, KeyError):  # whatever flipped bits make of Parquet
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


def _index(run: Files) -> _Index | None:
    """The index; when it is damaged what was written down of it; None when there is none."""
    record, data = _sealed_index(run), run.find(INDEX)
    if record is None:  # damaged, or of a version that wrote no such record
        return _Index.of(data) if data else None
    if data and sha256(data) == record["sha256"]:
        return _Index.of(data)
    rows = tuple(ShardRef(*row) for row in record["shards"])
    return _Index(record["identity"], record["digest"], rows)


def _sealed_index(run: Files) -> dict[str, Any] | None:
    """What was written down of the index: all that is in it, and its digest."""
    return unsealed(run.find(_RECORD) or b"")


def index_states(run: Files) -> Iterator[tuple[str, str, Literal["whole", "damaged", "missing", "unchecked"]]]:
    """For `verify`: the index and what was written down of it, as part, path and state."""
    record, index = run.find(_RECORD), run.find(INDEX)
    sealed_index = _sealed_index(run)
    if record is not None or run.exists(LEDGER):
        yield "shards", _RECORD, "missing" if record is None else "whole" if sealed_index else "damaged"
    if index is None:
        yield "shards", INDEX, "missing"
    elif sealed_index:
        yield "shards", INDEX, "whole" if sha256(index) == sealed_index["sha256"] else "damaged"
    else:
        yield "shards", INDEX, "unchecked" if _Index.of(index) else "damaged"


def _put_index(run: RunFolder, index: _Index) -> None:
    """Write an index, and before it all that is in it once more, with a digest."""
    data = index.as_bytes()
    rows = [astuple(shard) for shard in index.shards]
    record = {"identity": index.identity, "digest": index.digest, "shards": rows, "sha256": sha256(data)}
    run.put(_RECORD, sealed(record))
    run.put(INDEX, data)


def _mended(run: RunFolder) -> _Index | None:
    """The index, written again when it or what was written down of it is damaged."""
    index, record = _index(run), _sealed_index(run)
    if index is None:
        return None
    if record is None and any(sha256(run.find(shard_file(s.name)) or b"") != s.sha256 for s in index.shards):
        return None  # it agrees with nothing: who knows what it was
    if record is None or sha256(run.find(INDEX) or b"") != record["sha256"]:
        _put_index(run, index)
    run.delete(_PREVIOUS)
    return index


def holds_shards(place: Files) -> bool:
    """Whether there are shards of ours in a folder, finished or not."""
    found = (place.find(file) for file in (INDEX, _PREVIOUS))
    known = _sealed_index(place) is not None or any(data and _Index.of(data) for data in found)
    # A version before wrote nothing else until all tars were there.
    return known or (place.exists(shard_file("000000")) and _is_ours(place, shard_file("000000")))


def _previous(run: RunFolder) -> _Index | None:
    """The index of the tars that are being written over, None when there is none."""
    data = run.find(_PREVIOUS)
    return _Index.of(data, complete=False) if data else None


def _tars_there(run: RunFolder, index: _Index) -> bool:
    """Whether all tars have their size, and none was found damaged."""
    if run.exists(_DAMAGE_NOTES) and run.names(_DAMAGE_NOTES):
        return False
    return all(run.size(shard_file(shard.name)) == shard.bytes for shard in index.shards)


def _is_ours(run: Files, file: str) -> bool:
    """Whether a tar was written by `pack`, as those that a killed run leaves."""
    try:
        samples = list(unpack(run.get(file)))
    except (ValueError, KeyError, TypeError, OSError, tarfile.TarError):  # of whatever it is
        return False
    return bool(samples)


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
    known = {shard_file(shard.name) for shard in before.shards} if before else set()
    shards: list[ShardRef] = []
    for batch in _batches(only_images(samples), sizes):
        data = pack(batch)
        name = f"{len(shards):06d}"
        if shard_file(name) not in known and run.exists(shard_file(name)) and not _is_ours(run, shard_file(name)):
            raise ForeignFilesError.at(run.path(shard_file(name)))
        run.put(shard_file(name), data)
        shards.append(ShardRef(name, len(batch), len(data), sha256(data)))
    if not shards:
        raise SourceError(f"no pictures found in {identity}")
    discard_outputs(run, before.shards if before else (), keep=shards)
    for surplus in {s.name for s in before.shards} - {s.name for s in shards} if before else ():
        run.delete(shard_file(surplus))
    for note in run.names(_DAMAGE_NOTES) if run.exists(_DAMAGE_NOTES) else ():
        run.delete(note)
    _put_index(run, _Index(identity, digest, tuple(shards)))
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
    for folder in sorted(ledger.folders):
        if folder.count("/") == 1:
            for shard in gone:
                StageFolder(run, *folder.split("/")).discard(shard.name)
    _forget_evaluations(run)
    for mark in run.glob(f"subsets/*/{LEDGER}"):
        _forget_evaluations(RunFolder(run.below(mark.removesuffix(f"/{LEDGER}"))))


def _forget_evaluations(run: RunFolder) -> None:
    files = [path for path in Ledger.read(run).files if path.startswith("evaluations/")]
    forget_files(run, files, damaged_too=True)


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
