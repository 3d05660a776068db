"""Which columns of a Parquet file hold the pictures and their names."""

from __future__ import annotations

import pyarrow as pa

from pnp_core.errors import SourceError

_KEYS = ("key", "id", "__key__", "file_name", "filename")


def value_type(type_: pa.DataType) -> pa.DataType:
    """The type behind a dictionary coding, and `string` for every kind of text.

    >>> value_type(pa.dictionary(pa.int32(), pa.large_string()))
    DataType(string)
    """
    plain = type_.value_type if pa.types.is_dictionary(type_) else type_
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return pa.string() if any(kind(plain) for kind in texts) else plain


def _holds_pictures(type_: pa.DataType) -> bool:
    """Whether a column of this type can: bytes, a path, or a struct of both."""
    plain = value_type(type_)
    if pa.types.is_struct(plain):
        return not {"bytes", "path"}.isdisjoint(f.name for f in plain)
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_string)
    return any(kind(plain) for kind in kinds)


def image_column(schema: pa.Schema, wanted: str | None, path: str) -> str:
    """The column with the pictures: the one asked for, `image`, or the only one that fits.

    Raises:
        SourceError: none fits, or several do.
    """
    # A name that is there twice cannot be asked for.
    fitting = [f.name for f in schema if _holds_pictures(f.type) and schema.get_field_index(f.name) >= 0]
    listed = ", ".join(schema.names)
    if wanted is not None:
        if wanted not in fitting:
            raise SourceError(f"'{path}' has no column '{wanted}' of pictures; columns: {listed}")
        return wanted
    if "image" in fitting:
        return "image"
    # A column of text is only a guess; bytes and structs are not.
    texts = [n for n in fitting if pa.types.is_string(value_type(schema.field(n).type))]
    sure = [n for n in fitting if n not in texts] or [n for n in texts if n not in _KEYS] or texts
    if len(sure) != 1:
        which = f"several may be: {', '.join(sure)}" if sure else f"columns: {listed}"
        raise SourceError(f"which column of '{path}' holds the pictures? {which}; say so with --image-column")
    return sure[0]


def key_column(schema: pa.Schema, pictures: str) -> list[str]:
    """The column with a name per row; empty when there is none.

    Args:
        pictures: the column that is taken already.
    """
    for name in _KEYS:
        if name != pictures and schema.get_field_index(name) >= 0:
            type_ = value_type(schema.field(name).type)
            if pa.types.is_string(type_) or pa.types.is_integer(type_):
                return [name]
    return []
