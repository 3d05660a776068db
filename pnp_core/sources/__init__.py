"""A corpus of unknown origin: a folder, a picture, a list, Parquet files or webdataset tars.

Every input comes out as exactly one sample, with its bytes or with the fault that keeps them away.
"""

from __future__ import annotations

from pnp_core.errors import SourceError
from pnp_core.sources.base import MAX_BYTES, FileRef, Source, expand
from pnp_core.sources.folder import open_folder, open_picture
from pnp_core.sources.keys import printable, safe_key
from pnp_core.sources.lists import open_list
from pnp_core.sources.tables import open_tables
from pnp_core.sources.tars import open_tars

__all__ = ["MAX_BYTES", "Source", "open_source", "printable", "safe_key"]

_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")


def open_source(source: str, leave_out: str | None = None, image_column: str | None = None) -> Source:
    """List the pictures of a source; nothing but names, lists and table schemas is read.

    Args:
        source: a folder, a picture, a `.txt` or `.lst` of paths or URLs, `.parquet` or `.tar` files (with
            wildcards or braces); local or any fsspec URL.
        leave_out: a folder not to read, such as a run folder inside the source.
        image_column: of a Parquet source.

    Raises:
        SourceError: nothing there, no pictures, or files that are not what their ending says.
    """
    file = FileRef.of(source)
    kind = file.kind()
    if kind == "directory":
        return open_folder(file, leave_out)
    lower = source.lower()
    if lower.endswith(_PACKED):
        raise SourceError(f"'{source}' is packed; unpack it and give the folder, or tars without compression")
    if lower.endswith(".tar"):
        return open_tars(source, expand(source))
    if lower.endswith(".parquet"):
        return open_tables(source, expand(source), image_column)
    if kind is None:
        raise SourceError(
            f"source '{source}' does not exist; give a folder of pictures, a picture, a .txt list, .parquet or "
            f".tar files"
        )
    return open_list(file) if lower.endswith((".txt", ".lst")) else open_picture(file)
