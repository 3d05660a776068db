"""The run folder: artifacts, fingerprints, completion records.

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
    report/index.html  report/pictures/<fingerprint>/000000-<key's digest>.jpg  .png
    contact_sheet.png
    run.json  scores.json
    .pnp-ovss/                                 what is ours, see `ledger` and `ownership`

See `pnp_core.storage.completion` for what makes a stage complete.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from pnp_core.errors import CorruptRunError, DamagedError
from pnp_core.storage.files import Files
from pnp_core.storage.ledger import Ledger, claim_files, forget_files, settle_file
from pnp_core.storage.seals import json_bytes, sha256

REPORT = "report/index.html"
"""Where every run has its page."""
TUNING = "tune.json"
"""Record of a finished run of tune."""


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


NO_TABLE = (pa.ArrowException, OSError, TypeError, ValueError)
"""What Arrow raises of bytes that are no Parquet."""


def table_of(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The table of Parquet bytes; all its columns unless some are named.

    In the calling thread: a thread of Arrow that lets go of a Python object while the interpreter ends takes the
    process down ("terminate called without an active exception", apache/arrow#34314).
    """
    table = pq.ParquetFile(pa.BufferReader(data)).read(columns, use_threads=False)
    return table if columns is None else table.select(columns)


class RunFolder(Files):
    """A folder of ours; what is written is known as ours from then on, and what is read is whole."""

    def read(self, relative: str) -> bytes:
        """Content of a file that `write` wrote; unchecked in a folder of a version that kept no digests.

        Raises:
            CorruptRunError: the file is missing.
            DamagedError: it has other content than was written.
        """
        data = self.get(relative)
        digests = Ledger.read(self).files.get(relative)
        if digests and sha256(data) not in digests:
            raise DamagedError.at(self.path(relative))
        return data

    def read_table(self, relative: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file that `write` wrote; all its columns unless some are named.

        Raises:
            CorruptRunError: it is missing or damaged.
        """
        try:
            return table_of(self.read(relative), columns)
        except NO_TABLE as error:
            raise DamagedError.at(self.path(relative), " ".join(str(error).split())[:200]) from error

    def find_whole(self, relative: str) -> bytes | None:
        """Content of a file that `write` wrote; None when it is missing or damaged, and has to be made again."""
        try:
            return self.read(relative)
        except CorruptRunError:
            return None

    def find_table(self, relative: str, columns: list[str] | None = None) -> pa.Table | None:
        """A Parquet file that `write` wrote; None when it is missing or damaged, and has to be made again."""
        try:
            return self.read_table(relative, columns)
        except CorruptRunError:
            return None

    def read_json(self, relative: str) -> Any:
        """A JSON file of this folder; None when it is missing or damaged."""
        try:
            return json.loads(self.find_whole(relative) or b"")
        except ValueError:
            return None

    def write(self, relative: str, data: bytes) -> None:
        """Write a file so that a reader sees the old content or the new, never a part.

        Raises:
            ForeignFilesError: something is there that we did not write.
            OutputError: the file system refuses (no permission, read-only, disk full).
        """
        claim_files(self, {relative: sha256(data)})
        self.put(relative, data)

    def write_json(self, relative: str, value: Any) -> None:
        """Write a JSON file."""
        self.write(relative, json_bytes(value))

    @contextmanager
    def stream(self, relative: str) -> Iterator[BinaryIO]:
        """Write a file piece by piece; it is there when the block ends, and not when it fails.

        Raises:
            ForeignFilesError: something is there that we did not write.
            OutputError: the file system refuses.
        """
        claim_files(self, {relative: None})
        with self.put_stream(relative) as file:
            digesting = _Digesting(file)
            yield cast("BinaryIO", digesting)
        settle_file(self, relative, digesting.hexdigest())

    def remove(self, relative: str) -> None:
        """Delete a file that `write` wrote; another one of that name stays."""
        forget_files(self, [relative])


class _Digesting(io.RawIOBase):
    """Passes on what is written, and digests it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
