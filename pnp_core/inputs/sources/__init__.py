"""A corpus of unknown origin: a folder, a picture, a list, Parquet files or webdataset tars.

Every input comes out as exactly one sample, with its bytes or with the fault that keeps them away.
"""

from __future__ import annotations

from pnp_core.data import Sample
from pnp_core.errors import SourceError
from pnp_core.inputs.sources._fetching import FETCH_SECONDS, Fetches
from pnp_core.inputs.sources._sampling import counted, shuffle
from pnp_core.inputs.sources.base import MAX_BYTES, FileRef, Source, expand
from pnp_core.inputs.sources.folder import open_folder, open_image
from pnp_core.inputs.sources.keys import printable, safe_key
from pnp_core.inputs.sources.lists import open_list
from pnp_core.inputs.sources.tables import open_tables
from pnp_core.inputs.sources.tars import open_tars

__all__ = ["MAX_BYTES", "Source", "draw", "open_source", "printable", "safe_key", "shuffle"]

_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")


def open_source(
    source: str,
    leave_out: str | None = None,
    image_column: str | None = None,
    follow_links: bool = False,
    exclude: tuple[str, ...] = (),
    fetch_seconds: float = FETCH_SECONDS,
) -> Source:
    """List the pictures of a source; nothing but names, lists and table schemas is read.

    Args:
        source: a folder, a picture, a `.txt` or `.lst` of paths or URLs, `.parquet` or `.tar` files (with
            wildcards or braces); local or any fsspec URL.
        leave_out: a folder not to read, such as a run folder inside the source.
        image_column: of a Parquet source.
        follow_links: of a folder: take what links lead to outside of it too.
        exclude: of a folder, a list or tars: patterns of paths and names to leave out.
        fetch_seconds: limit for each picture on another machine.

    Raises:
        SourceError: nothing there, no pictures, files that are not what their ending says, or patterns for a source
            without names.
    """
    file, fetches = FileRef.of(source, fetch_seconds), Fetches(fetch_seconds)
    kind = file.kind()
    if kind == "directory":
        return open_folder(file, leave_out, follow_links, exclude)
    lower = source.lower()
    if lower.endswith(_PACKED):
        raise SourceError(f"'{source}' is packed; unpack it and give the folder, or tars without compression")
    if lower.endswith(".tar"):
        return open_tars(source, expand(source), exclude)
    if lower.endswith(".parquet"):
        _refuse_patterns(source, exclude)
        return open_tables(source, expand(source), image_column, fetches)
    if kind is None:
        raise SourceError(
            f"source '{source}' does not exist; give a folder of pictures, a picture, a .txt list, .parquet or "
            f".tar files"
        )
    if lower.endswith((".txt", ".lst")):
        return open_list(file, fetches, exclude)
    _refuse_patterns(source, exclude)
    return open_image(file)


def _refuse_patterns(source: str, exclude: tuple[str, ...]) -> None:
    if exclude:
        raise SourceError(
            f"--exclude leaves out files of a folder, lines of a list and files of tars; '{source}' has none"
        )


def draw(source: Source, number: int, seed: int = 0) -> tuple[int, list[Sample]]:
    """How many pictures a source has, and so many of them drawn at random; a table or a tar is read for it once."""
    if source.listed is not None:
        return source.listed, list(source.subset(number, seed))
    return counted(source.samples(), number, seed)
