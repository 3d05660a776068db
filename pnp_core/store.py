"""The run folder: atomic artifacts, fingerprints, completion records.

Layout, relative to the folder (a local path or any fsspec URL)::

    shards/000000.tar ...  shards/index.parquet
    salience/<fingerprint>/000000.safetensors  000000.parquet  000000.done.json
    masks/<fingerprint>/000000.parquet         000000.done.json (or .failed.json, when it was given up)
    png/<fingerprint>/<key>.png                000000.done.json
    tuning-maps/<fingerprint>/000000.safetensors  000000.parquet  000000.done.json
    tuning-pictures/<fingerprint>/000000.safetensors              000000.done.json
    scores/<fingerprint>/000000.parquet  000000.pictures.parquet  000000.done.json
    evaluations/<fingerprint of scores>/run.json  scores.json
    quarantine/<stage>/<fingerprint>/000000.parquet
    report/index.html  contact_sheet.png
    run.json  scores.json

A stage is complete for a shard when its ``.done.json`` exists and names the input it was made
from; it is written last. That alone decides what a repeated command does again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from time import monotonic
from typing import Any, BinaryIO, cast

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from pnp_core.errors import CorruptRunError, OutputError
from pnp_core.records import Quarantined, StageResult

_MAX_TENSOR_HEADER = 100_000_000  # bytes, as the format allows
_TENSOR_TYPES = {"F16": np.float16, "F32": np.float32, "U8": np.uint8}
QUARANTINE_SCHEMA = pa.schema([(name, pa.string()) for name in ("key", "source", "stage", "reason")])


def sha256(data: bytes) -> str:
    """Hex digest of some bytes."""
    return hashlib.sha256(data).hexdigest()


def fingerprint(*parts: Any) -> str:
    """A short, stable name (16 hex digits) for a tuple of JSON-able values.

    >>> fingerprint("masks", {"a": 1, "b": 2}) == fingerprint("masks", {"b": 2, "a": 1})
    True
    """
    return sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode())[:16]


def table_bytes(table: pa.Table) -> bytes:
    """A table as Parquet bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def read_table_bytes(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The table of Parquet bytes; all its columns unless some are named.

    In the calling thread: a thread of Arrow that lets go of a Python object while the interpreter ends takes the
    process down ("terminate called without an active exception", apache/arrow#34314).
    """
    table = pq.ParquetFile(pa.BufferReader(data)).read(columns, use_threads=False)
    return table if columns is None else table.select(columns)


class RunFolder:
    """Reads and atomic writes below one local folder or fsspec URL."""

    def __init__(self, url: str) -> None:
        """Open (not create) a run folder.

        Raises:
            OutputError: the URL's file system is unknown or needs a package that is missing.
        """
        try:
            # Other machines write here too, so nothing may be remembered of what lies there.
            self.fs, self.root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise OutputError(f"cannot open output '{url}': {error}") from error
        self.url = url
        self._local = isinstance(self.fs, LocalFileSystem)

    def path(self, relative: str) -> str:
        """Full path of a file of this folder on its file system."""
        return str(PurePosixPath(self.root) / relative)

    def exists(self, relative: str) -> bool:
        """Whether a file or folder is there."""
        return self.fs.exists(self.path(relative))

    def size(self, relative: str) -> int | None:
        """Bytes of a file, None when it is not there."""
        try:
            return self.fs.size(self.path(relative))
        except FileNotFoundError:
            return None

    def read(self, relative: str) -> bytes:
        """Content of a file.

        Raises:
            CorruptRunError: the file is missing.
        """
        try:
            return self.fs.cat_file(self.path(relative))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._missing(relative) from error

    def read_table(self, relative: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file of this folder; all its columns unless some are named."""
        return read_table_bytes(self.read(relative), columns)

    def read_tensor(self, relative: str, name: str) -> np.ndarray:
        """One tensor of a safetensors file of this folder; of the rest only the header is read.

        Raises:
            CorruptRunError: the file or the tensor is missing, or the file is cut short.
        """
        header, start = self._tensor_header(relative)
        if name not in header:
            raise CorruptRunError(f"'{self.path(relative)}' has no tensor '{name}'; delete the folder and run again")
        first, last = header[name]["data_offsets"]
        values = np.frombuffer(self._part(relative, start + first, start + last), _TENSOR_TYPES[header[name]["dtype"]])
        return values.reshape(header[name]["shape"])

    def _tensor_header(self, relative: str) -> tuple[dict[str, Any], int]:
        """Header of a safetensors file, and where its data begins."""
        length = int.from_bytes(self._part(relative, 0, 8), "little")
        if length > _MAX_TENSOR_HEADER:
            raise CorruptRunError(f"'{self.path(relative)}' is no safetensors file; delete the folder and run again")
        return json.loads(self._part(relative, 8, 8 + length)), 8 + length

    def _part(self, relative: str, start: int, end: int) -> bytes:
        try:
            part = self.fs.cat_file(self.path(relative), start=start, end=end)
        except FileNotFoundError as error:
            raise self._missing(relative) from error
        if len(part) != end - start:
            raise CorruptRunError(f"'{self.path(relative)}' is cut short; delete the folder and run again")
        return part

    def _missing(self, relative: str) -> CorruptRunError:
        return CorruptRunError(
            f"'{self.path(relative)}' is missing from the run folder; delete the folder and run again"
        )

    def read_json(self, relative: str) -> Any:
        """A JSON file of this folder; None when it is missing or was cut short by another tool."""
        try:
            return json.loads(self.read(relative))
        except (CorruptRunError, json.JSONDecodeError):
            return None

    def write(self, relative: str, data: bytes) -> None:
        """Write a file so that a reader sees the old content or the new, never a part.

        Raises:
            OutputError: the file system refuses (no permission, read-only, disk full).
        """
        target = self.path(relative)
        try:
            if self._local:
                _write_local(Path(target), data)
            else:
                # One put is atomic on object stores; a rename there is a copy.
                self.fs.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
                self.fs.pipe_file(target, data)
        except OSError as error:
            raise OutputError(f"cannot write '{target}': {error.strerror or error}") from error

    @contextmanager
    def stream(self, relative: str) -> Iterator[BinaryIO]:
        """Write a file piece by piece; it is there when the block ends, and not when it fails.

        Raises:
            OutputError: the file system refuses.
        """
        target = self.path(relative)
        try:
            if self._local:
                with _stream_local(Path(target)) as file:
                    yield file
            else:
                with tempfile.NamedTemporaryFile() as file:
                    yield cast("BinaryIO", file)
                    file.flush()
                    self.fs.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
                    self.fs.put_file(file.name, target)
        except OSError as error:
            if error.errno is None:  # not of a file system: Pillow raises these of pictures
                raise
            raise OutputError(f"cannot write '{target}': {error.strerror or error}") from error

    def write_json(self, relative: str, value: Any) -> bytes:
        """Write a JSON file; returns its bytes."""
        data = (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
        self.write(relative, data)
        return data

    def check_writable(self) -> None:
        """Raise OutputError unless files can be written here."""
        self.write(".writable", b"")
        self.remove(".writable")

    def remove(self, relative: str) -> None:
        """Delete a file if it is there."""
        if self.exists(relative):
            self.fs.rm_file(self.path(relative))

    def remove_tree(self, relative: str) -> None:
        """Delete a folder and all in it, if it is there."""
        if self.exists(relative):
            self.fs.rm(self.path(relative), recursive=True)

    def glob(self, pattern: str) -> list[str]:
        """Files that match a pattern, relative to the run folder, sorted."""
        root = PurePosixPath(self.root)
        return sorted(str(PurePosixPath(f).relative_to(root)) for f in self.fs.glob(self.path(pattern)))


def _write_local(target: Path, data: bytes) -> None:
    with _stream_local(target) as file:
        file.write(data)


@contextmanager
def _stream_local(target: Path) -> Iterator[BinaryIO]:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; not every file system lets a folder be synced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class StageOutput:
    """What a stage made of one shard: files by extension, pictures done, pictures set aside.

    Attributes:
        files: extension -> content of ``<stage>/<fingerprint>/<shard>.<extension>``.
        extra: run-folder path -> content, for files that carry another name.
    """

    files: dict[str, bytes]
    done: int
    quarantined: list[Quarantined] = field(default_factory=list)
    extra: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class StageFolder:
    """One stage under one fingerprint in a run folder."""

    run: RunFolder
    stage: str
    fingerprint: str

    def file(self, shard: str, extension: str) -> str:
        """Path of a shard's artifact, relative to the run folder."""
        return f"{self.stage}/{self.fingerprint}/{shard}.{extension}"

    def quarantine_file(self, shard: str) -> str:
        """Path of a shard's quarantine table, relative to the run folder."""
        return f"quarantine/{self.stage}/{self.fingerprint}/{shard}.parquet"

    def complete(self, shard: str, input_sha256: str, work: Callable[[], StageOutput]) -> StageResult:
        """Do the work for one shard unless its completion record says it is done.

        Args:
            input_sha256: identity of what the work reads; another value makes it run again.
            work: computes the outputs; called at most once, and never when the shard is complete.
        """
        start = monotonic()
        if finished := self.find(shard, input_sha256):
            return finished
        self.try_again(shard)
        output = work()
        files = {self.file(shard, extension): data for extension, data in output.files.items()}
        files |= output.extra
        if output.quarantined:
            files[self.quarantine_file(shard)] = _quarantine_bytes(output.quarantined)
        for relative, data in files.items():
            self.run.write(relative, data)
        record = {
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "input": input_sha256,
            "outputs": {relative: len(data) for relative, data in files.items()},
            "sha256": sha256("".join(sha256(data) for data in files.values()).encode()),
            "done": output.done,
            "quarantined": len(output.quarantined),
        }
        data = self.run.write_json(self.file(shard, "done.json"), record)
        # Another process may have given the shard up meanwhile.
        self.run.remove(self.file(shard, "failed.json"))
        if not output.quarantined:
            self.run.remove(self.quarantine_file(shard))
        return self._result(shard, record, data, False, start)

    def find(self, shard: str, input_sha256: str) -> StageResult | None:
        """What the completion record of a shard says; None when the work is still to be done."""
        start, record_file = monotonic(), self.file(shard, "done.json")
        record = self.run.read_json(record_file)
        if record and record["input"] == input_sha256 and self._outputs_intact(record):
            return self._result(shard, record, self.run.read(record_file), True, start)
        return None

    def give_up(self, shard: str, pictures: list[Quarantined]) -> StageResult:
        """Set all pictures of a shard aside. There is no completion record: the next run tries it again."""
        self.run.write(self.quarantine_file(shard), _quarantine_bytes(pictures))
        self.run.write_json(self.file(shard, "failed.json"), {"quarantined": len(pictures)})
        return self._failed(shard, len(pictures))

    def find_failed(self, shard: str) -> StageResult | None:
        """What is known of a shard that was given up; None when it was not."""
        record = self.run.read_json(self.file(shard, "failed.json"))
        return record and self._failed(shard, record["quarantined"])

    def try_again(self, shard: str) -> None:
        """Forget that a shard was given up."""
        for file in (self.file(shard, "failed.json"), self.quarantine_file(shard)):
            self.run.remove(file)

    def _failed(self, shard: str, pictures: int) -> StageResult:
        return StageResult(self.stage, shard, 0, pictures, "", resumed=False, failed=True)

    def _outputs_intact(self, record: dict[str, Any]) -> bool:
        return all(self.run.size(path) == size for path, size in record["outputs"].items())

    def _result(self, shard: str, record: dict[str, Any], data: bytes, resumed: bool, start: float) -> StageResult:
        return StageResult(
            stage=self.stage,
            shard=shard,
            done=record["done"],
            quarantined=record["quarantined"],
            record_sha256=sha256(data),
            resumed=resumed,
            seconds=monotonic() - start,
        )


def _quarantine_bytes(pictures: list[Quarantined]) -> bytes:
    return table_bytes(pa.Table.from_pylist([vars(picture) for picture in pictures], schema=QUARANTINE_SCHEMA))


def discard_shards(run: RunFolder, keep: set[str]) -> None:
    """Delete all stages' outputs of shards that are gone or have other pictures now.

    Whatever carries the shard's name goes, whether or not a record lists it: a killed stage leaves
    files without one. PNG files carry the pictures' names, so all of them go; they are copies.
    So do all evaluations, which are of the pictures that were there, and the run folders of class subsets.

    Args:
        keep: names of the shards that are still the same.
    """
    for pattern in ("salience/*/*", "tuning-*/*/*", "masks/*/*", "scores/*/*", "quarantine/*/*/*"):
        for relative in run.glob(pattern):
            if PurePosixPath(relative).name.lstrip(".").split(".")[0] not in keep:
                run.remove(relative)
    for folder in ("png", "evaluations", "subsets"):
        run.remove_tree(folder)
