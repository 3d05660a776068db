"""Which columns of a Parquet file hold the pictures and their names."""

from __future__ import annotations

from collections.abc import Callable

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


def image_type(type_: pa.DataType) -> pa.DataType:
    """The type of one picture in a column of single ones or of lists, see `value_type`.

    >>> image_type(pa.list_(pa.large_string()))
    DataType(string)
    """
    return value_type(type_.value_type if is_list(type_) else type_)


def is_list(type_: pa.DataType) -> bool:
    """Whether each row holds a list, of any kind."""
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(kind(type_) for kind in kinds)


def _holds_images(type_: pa.DataType) -> bool:
    """Whether a column of this type can: bytes, text, a struct of bytes and path, or lists of them."""
    plain = image_type(type_)
    if pa.types.is_struct(plain):
        return not {"bytes", "path"}.isdisjoint(f.name for f in plain)
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_string)
    return any(kind(plain) for kind in kinds)


def image_column(schema: pa.Schema, column: str | None, path: str, look: Callable[[str], str | None]) -> str:
    """The column with the pictures: the one asked for, `image`, or the only one that fits;
    of several the only one of single pictures.

    Args:
        look: what the first rows of a column of text hold, when that is no picture and no path or URL.

    Raises:
        SourceError: none fits, or several do.
    """
    # A name that is there twice cannot be asked for.
    fitting = [f.name for f in schema if _holds_images(f.type) and schema.get_field_index(f.name) >= 0]
    listed = ", ".join(schema.names)
    if column is not None:
        if column not in fitting:
            raise SourceError(f"'{path}' has no column '{column}' of pictures; columns: {listed}")
        fitting = [column]
    # A column of text is only a guess; bytes and structs are not.
    texts = [n for n in fitting if pa.types.is_string(image_type(schema.field(n).type))]
    strange = {name: what for name in texts if (what := look(name)) is not None}
    texts = [name for name in texts if name not in strange]
    sure = [n for n in fitting if n not in (*texts, *strange)] or [n for n in texts if n not in _KEYS] or texts
    if "image" in sure or "image" in texts:
        return "image"
    if not sure and strange:
        name = next((name for name in ("image", "images") if name in strange), next(iter(strange)))
        raise SourceError(
            f"column '{name}' of '{path}' holds {strange[name]}, no pictures, paths or URLs; columns: {listed}; "
            f"say which one with --image-column"
        )
    # Lists beside pictures are masks, crops or the like of each of them.
    single = [name for name in sure if not is_list(schema.field(name).type)]
    sure = single if len(single) == 1 else sure
    if len(sure) != 1:
        which = f"several may be: {', '.join(sure)}" if sure else f"columns: {listed}"
        raise SourceError(f"which column of '{path}' holds the pictures? {which}; say so with --image-column")
    return sure[0]


def key_column(schema: pa.Schema, images: str) -> list[str]:
    """The column with a name per row; empty when there is none.

    Args:
        images: the column that is taken already.
    """
    for name in _KEYS:
        if name != images and schema.get_field_index(name) >= 0:
            type_ = value_type(schema.field(name).type)
            if pa.types.is_string(type_) or pa.types.is_integer(type_):
                return [name]
    return []
