"""Parquet files with a column of pictures, as Hugging Face datasets come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pnp_core.data import Sample
from pnp_core.errors import SourceError
from pnp_core.inputs.images import IMAGE_EXTENSIONS
from pnp_core.inputs.sources._cells import image_text, strange_text
from pnp_core.inputs.sources._columns import image_column, image_type, is_list, key_column, value_type
from pnp_core.inputs.sources._fetching import Fetches
from pnp_core.inputs.sources._pointed import Fetched, Given, Pointed, fetched, stamps
from pnp_core.inputs.sources._sampling import reservoir
from pnp_core.inputs.sources.base import FileRef, NotReadError, check_size, common_folder, digest_of, reason
from pnp_core.inputs.sources.keys import UniqueNames, printable, safe_ending, safe_key, split_ending
from pnp_core.storage.first_bytes import pointer, refusal

BATCH = 16
"""Rows read at once."""
FIRST_ROWS = 32
"""Rows of a column of text that are looked at before it is taken for one of pictures."""
_BUFFER = 1 << 20


@dataclass(frozen=True)
class Row:
    """What a row says of its picture: bytes, where they are, or why there are none."""

    data: bytes | None = None
    path: str | None = None
    key: str | None = None
    fault: str | None = None
    number: int | None = None
    """In the row's list, where it has one."""


def _rows(value: Any, key: Any) -> Iterator[Row]:
    """The pictures of a row from Arrow scalars: one, or those of a list by number."""
    try:
        name = None if key is None or not key.is_valid else str(key.as_py())
    except ValueError as error:
        yield Row(fault=f"the row cannot be read: {reason(error)}")
        return
    if not is_list(value.type):
        yield _row(value, name)
    elif value.is_valid:  # an empty list, or none, is no lost picture
        yield from (replace(_row(part, name), number=number) for number, part in enumerate(value))


def _row(value: Any, name: str | None) -> Row:
    """A picture; text that is not UTF-8, or too many bytes, are its own fault only."""
    try:
        if pa.types.is_struct(value.type):
            parts = {f.name: value[f.name] for f in value.type} if value.is_valid else {}
        else:
            kind = "path" if pa.types.is_string(value_type(value.type)) else "bytes"
            parts = {kind: value}
        data, path = parts.get("bytes"), parts.get("path")
        if data is not None and data.is_valid:
            check_size(data.as_buffer().size)
        return _decoded(data and data.as_py(), path and path.as_py(), name)
    except NotReadError as error:
        return Row(key=name, fault=str(error))
    except ValueError as error:
        return Row(key=name, fault=f"the row cannot be read: {reason(error)}")


def _decoded(data: bytes | str | None, path: str | None, name: str | None) -> Row:
    """A row whose picture may be written as text, in place of its bytes or of its path.

    Raises:
        ValueError: it is, and cannot be decoded.
    """
    if isinstance(data, bytes) and data.isascii() and refusal(data) is not None:
        data = image_text(data.decode("ascii")) or data
    elif isinstance(data, str):
        decoded = image_text(data)
        if decoded is None:
            raise ValueError("its bytes are text, and no base64 of a picture")
        data = decoded
    if data is None and path is not None and (data := image_text(path)) is not None:
        path = None
    return Row(data, path, name)


def _open(opened: Any) -> pq.ParquetFile:
    # Buffered and not read ahead: a row group may hold gigabytes of pictures.
    return pq.ParquetFile(opened, buffer_size=_BUFFER, pre_buffer=False)


_NOTHING = Sample("", b"", "", "")


@dataclass(frozen=True)
class TableSource:
    """Pictures in Parquet files; a `Source`."""

    pattern: str
    files: tuple[FileRef, ...]
    column: str
    ignored: Counter[str] = field(default_factory=Counter)
    fetches: Fetches = field(default_factory=Fetches, compare=False)

    @property
    def identity(self) -> str:
        """What was asked for."""
        return printable(self.pattern)

    @property
    def listed(self) -> None:
        """Known only when all are read."""

    def digest(self) -> str:
        """From names, sizes and times of change of the files, and of the pictures that rows only point to."""
        return digest_of([self.column, *(line for file in self.files for line in self._stamps(file))])

    def _stamps(self, file: FileRef) -> Iterator[str]:
        yield f"{file.path}\0{file.stamp()}"
        with file.fs.open(file.path, "rb") as opened:
            table = _open(opened)
            for group in range(table.num_row_groups):
                if _embedded(table, group, self.column):
                    continue
                pointed = (
                    Pointed(row.path, file.folder, _NOTHING)
                    for _, row in self._group(table, group, [], 0)
                    if row.data is None and row.path is not None
                )
                yield from stamps(pointed, self.fetches)

    def samples(self) -> Iterator[Sample]:
        """The rows in order, those fetched late last; a few in memory at a time."""
        return fetched(self._samples(), self.fetches)

    def subset(self, number: int, seed: int) -> Iterator[Sample]:
        """Some of the pictures, see `Source`; the files are read from end to end."""
        return reservoir(self.samples(), number, seed)

    def _samples(self) -> Iterator[Fetched]:
        unique = UniqueNames()
        root = common_folder(list(self.files))
        for file in self.files:
            for number, row in self._rows(file):
                where = f"{file.path.removeprefix(root)}!{number}"
                yield self._sample(row, where, file, unique)

    def _rows(self, file: FileRef) -> Iterator[tuple[int, Row]]:
        """The pictures, each with the number of its row."""
        with file.fs.open(file.path, "rb") as opened:
            table = _open(opened)
            before = 0
            for group in range(table.num_row_groups):
                yield from self._group(table, group, key_column(table.schema_arrow, self.column), before)
                before += table.metadata.row_group(group).num_rows

    def _group(self, table: pq.ParquetFile, group: int, keys: list[str], before: int) -> Iterator[tuple[int, Row]]:
        """Pictures of a row group; damage costs its own rows, the next row group is read on its own.

        Args:
            before: number of rows in the groups before.
        """
        done = 0
        try:
            for batch in table.iter_batches(BATCH, row_groups=[group], columns=[*keys, self.column], use_threads=False):
                names = batch.column(keys[0]) if keys else None
                for i, value in enumerate(batch.column(self.column)):
                    done += 1
                    for row in _rows(value, None if names is None else names[i]):
                        yield before + done - 1, row
        except (pa.ArrowException, OSError) as error:
            for number in range(done, table.metadata.row_group(group).num_rows):
                yield before + number, Row(fault=f"row group {group} is damaged: {reason(error)}")

    def _sample(self, row: Row, where: str, file: FileRef, unique: UniqueNames) -> Fetched:
        if row.number is not None:
            name, where = f"{row.key or where.replace('!', '_')}/{row.number}", f"{where}/{row.number}"
        else:
            name = row.key or row.path or where.replace("!", "_")
        key = safe_key(unique(_without_ending(name).lstrip("/")))
        source = printable(f"{where} ({row.path or name})")
        ending = safe_ending(row.path or name) if split_ending(row.path or name)[1] else "bin"
        fault = row.fault
        if row.data is None and row.path is None:
            fault = fault or f"column '{self.column}' is empty in this row"
        sample = Sample(key, row.data or b"", ending, source, fault=fault, name=printable(name))
        if fault is not None or row.data is not None:
            return Given(sample)
        line = row.path or ""
        return Pointed(line, file.folder, replace(sample, extension=safe_ending(line)))


def _embedded(table: pq.ParquetFile, group: int, column: str) -> bool:
    """Whether a row group is known to hold the bytes of all its pictures, and points to none."""
    type_ = image_type(table.schema_arrow.field(column).type)
    if not pa.types.is_struct(type_):
        return not pa.types.is_string(type_)
    metadata = table.metadata.row_group(group)
    leaves = (metadata.column(i) for i in range(metadata.num_columns))
    # Of a list what lies between has different names by who wrote it: images.list.element.bytes
    told = [
        leaf.statistics
        for leaf in leaves
        if leaf.path_in_schema.startswith(f"{column}.") and leaf.path_in_schema.endswith(".bytes")
    ]
    return len(told) == 1 and told[0] is not None and told[0].has_null_count and told[0].null_count == 0


def _without_ending(name: str) -> str:
    stem, ending = split_ending(name)
    return stem if ending in IMAGE_EXTENSIONS else name


def _why(file: FileRef, error: Exception) -> str:
    try:
        with file.fs.open(file.path, "rb") as opened:
            return pointer(opened.read(200)) or reason(error)
    except Exception:  # of a file system's package
        return reason(error)


def _look(table: pq.ParquetFile, column: str, folder: FileRef) -> str | None:
    """What the first rows of a column of text hold, when that is no picture and no path or URL."""
    try:
        first = next(table.iter_batches(FIRST_ROWS, columns=[column], use_threads=False))
        values = first.column(column).to_pylist()
    except (StopIteration, pa.ArrowException, OSError, ValueError):  # damage is told where the rows are read
        return None
    texts = chain.from_iterable(value if isinstance(value, list) else [value] for value in values)
    return strange_text((text for text in texts if text), folder)


def open_tables(pattern: str, files: list[FileRef], column: str | None, fetches: Fetches) -> TableSource:
    """Look at the files' columns, and at the first rows of those with text.

    Raises:
        SourceError: one is not Parquet, the column of pictures cannot be told, or there are no rows.
    """
    columns = set()
    rows = 0
    for file in files:
        try:
            with file.fs.open(file.path, "rb") as opened:
                table = _open(opened)
                rows += table.metadata.num_rows
                look = partial(_look, table, folder=file.folder)
                columns.add(image_column(table.schema_arrow, column, printable(file.path), look))
        except SourceError:
            raise
        except Exception as error:  # of Arrow, or of a file system's package
            raise SourceError(f"'{printable(file.path)}' is not a Parquet file: {_why(file, error)}") from error
    if len(columns) > 1:
        raise SourceError(f"'{pattern}' has pictures in different columns: {', '.join(sorted(columns))}")
    if not rows:
        raise SourceError(f"'{pattern}' has no rows")
    return TableSource(pattern, tuple(files), columns.pop(), fetches=fetches)
