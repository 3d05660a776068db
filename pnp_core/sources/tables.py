"""Parquet files with a column of pictures, as Hugging Face datasets come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pnp_core.errors import SourceError
from pnp_core.images import IMAGE_EXTENSIONS
from pnp_core.records import Sample
from pnp_core.sources.base import FileRef, NotReadError, check_size, common_folder, digest_of, reason
from pnp_core.sources.columns import image_column, key_column, value_type
from pnp_core.sources.keys import UniqueNames, printable, safe_ending, safe_key, split_ending
from pnp_core.sources.lists import pointed_sample, pointed_stamp

BATCH = 16
"""Rows read at once."""
_BUFFER = 1 << 20


@dataclass(frozen=True)
class Row:
    """What a row says of its picture: bytes, where they are, or why there are none."""

    data: bytes | None = None
    path: str | None = None
    key: str | None = None
    fault: str | None = None


def _row(value: Any, key: Any) -> Row:
    """A row from Arrow scalars; text that is not UTF-8, or too many bytes, are its own fault only."""
    try:
        name = None if key is None or not key.is_valid else str(key.as_py())
        if pa.types.is_struct(value.type):
            parts = {f.name: value[f.name] for f in value.type} if value.is_valid else {}
        else:
            kind = "path" if pa.types.is_string(value_type(value.type)) else "bytes"
            parts = {kind: value}
        data, path = parts.get("bytes"), parts.get("path")
        if data is not None and data.is_valid:
            check_size(data.as_buffer().size)
        return Row(data and data.as_py(), path and path.as_py(), name)
    except NotReadError as error:
        return Row(fault=str(error))
    except ValueError as error:
        return Row(fault=f"the row cannot be read: {reason(error)}")


def _open(opened: Any) -> pq.ParquetFile:
    # Buffered and not read ahead: a row group may hold gigabytes of pictures.
    return pq.ParquetFile(opened, buffer_size=_BUFFER, pre_buffer=False)


@dataclass(frozen=True)
class TableSource:
    """Pictures in Parquet files; a `Source`."""

    pattern: str
    files: tuple[FileRef, ...]
    column: str
    ignored: Counter[str] = field(default_factory=Counter)

    @property
    def identity(self) -> str:
        """What was asked for."""
        return printable(self.pattern)

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
                for row in self._group(table, group, []):
                    if row.data is None and row.path is not None:
                        yield f"{row.path}\0{pointed_stamp(row.path, file.folder)}"

    def samples(self) -> Iterator[Sample]:
        """The rows in order, a few in memory at a time."""
        unique = UniqueNames()
        root = common_folder(list(self.files))
        for file in self.files:
            for number, row in enumerate(self._rows(file)):
                where = f"{file.path.removeprefix(root)}!{number}"
                yield self._sample(row, where, file, unique)

    def _rows(self, file: FileRef) -> Iterator[Row]:
        with file.fs.open(file.path, "rb") as opened:
            table = _open(opened)
            for group in range(table.num_row_groups):
                yield from self._group(table, group, key_column(table.schema_arrow, self.column))

    def _group(self, table: pq.ParquetFile, group: int, keys: list[str]) -> Iterator[Row]:
        """Rows of a row group; damage costs its own rows, the next row group is read on its own."""
        done = 0
        try:
            for batch in table.iter_batches(BATCH, row_groups=[group], columns=[*keys, self.column], use_threads=False):
                names = batch.column(keys[0]) if keys else None
                for i, value in enumerate(batch.column(self.column)):
                    done += 1
                    yield _row(value, None if names is None else names[i])
        except (pa.ArrowException, OSError) as error:
            for _ in range(table.metadata.row_group(group).num_rows - done):
                yield Row(fault=f"row group {group} is damaged: {reason(error)}")

    def _sample(self, row: Row, where: str, file: FileRef, unique: UniqueNames) -> Sample:
        name = row.key or row.path or where.replace("!", "_")
        key = safe_key(unique(_without_ending(name).lstrip("/")))
        source = printable(f"{where} ({row.path or name})")
        ending = safe_ending(row.path or name) if split_ending(row.path or name)[1] else "bin"
        fault = row.fault
        if row.data is None and row.path is None:
            fault = fault or f"column '{self.column}' is empty in this row"
        if fault is not None or row.data is not None:
            return Sample(key, row.data or b"", ending, source, fault=fault, name=printable(name))
        read = pointed_sample(row.path or "", file.folder, key)
        return Sample(key, read.image, read.extension, source, fault=read.fault, name=printable(name))


def _embedded(table: pq.ParquetFile, group: int, column: str) -> bool:
    """Whether a row group is known to hold the bytes of all its pictures, and points to none."""
    type_ = value_type(table.schema_arrow.field(column).type)
    if not pa.types.is_struct(type_):
        return not pa.types.is_string(type_)
    metadata = table.metadata.row_group(group)
    leaves = {metadata.column(i).path_in_schema: metadata.column(i) for i in range(metadata.num_columns)}
    told = leaves[f"{column}.bytes"].statistics if f"{column}.bytes" in leaves else None
    return told is not None and told.has_null_count and told.null_count == 0


def _without_ending(name: str) -> str:
    stem, ending = split_ending(name)
    return stem if ending in IMAGE_EXTENSIONS else name


def open_tables(pattern: str, files: list[FileRef], wanted: str | None) -> TableSource:
    """Look at the files' columns.

    Raises:
        SourceError: one is not Parquet, the column of pictures cannot be told, or there are no rows.
    """
    columns = set()
    rows = 0
    for file in files:
        try:
            with file.fs.open(file.path, "rb") as opened:
                table = _open(opened)
                schema, rows = table.schema_arrow, rows + table.metadata.num_rows
        except Exception as error:  # of Arrow, or of a file system's package
            raise SourceError(f"'{printable(file.path)}' is not a Parquet file: {reason(error)}") from error
        columns.add(image_column(schema, wanted, printable(file.path)))
    if len(columns) > 1:
        raise SourceError(f"'{pattern}' has pictures in different columns: {', '.join(sorted(columns))}")
    if not rows:
        raise SourceError(f"'{pattern}' has no rows")
    return TableSource(pattern, tuple(files), columns.pop())
