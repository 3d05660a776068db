"""A corpus of unknown origin: a folder, a picture, a list, Parquet files or webdataset tars.

Every input comes out as exactly one sample, with its bytes or with the fault that keeps them away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from pnp_core.data import Sample
from pnp_core.errors import SourceError
from pnp_core.inputs.sources.base import MAX_BYTES, FileRef, Source, expand
from pnp_core.inputs.sources.fetching import FETCH_SECONDS, Fetches
from pnp_core.inputs.sources.folder import FolderSource, open_folder, open_picture
from pnp_core.inputs.sources.keys import printable, safe_key
from pnp_core.inputs.sources.lists import ListSource, open_list
from pnp_core.inputs.sources.tables import open_tables
from pnp_core.inputs.sources.tars import open_tars

__all__ = ["MAX_BYTES", "Source", "open_source", "printable", "safe_key", "shuffle", "subset_of"]

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
    return open_picture(file)


def _refuse_patterns(source: str, exclude: tuple[str, ...]) -> None:
    if exclude:
        raise SourceError(
            f"--exclude leaves out files of a folder, lines of a list and files of tars; '{source}' has none"
        )


def subset_of(source: Source, number: int, seed: int) -> Iterator[Sample]:
    """So many pictures of a source drawn at random, in their order; all when there are not more.

    Of a folder or list only those are read. Tars and tables are read once from end to end, with no
    more than `number` pictures in memory.
    """
    if isinstance(source, FolderSource):
        # In the source's order: a picture's key may depend on its neighbours.
        return replace(source, names=_some(source.names, number, seed)).samples()
    if isinstance(source, ListSource):
        return replace(source, lines=_some(source.lines, number, seed)).samples()
    return _reservoir(source.samples(), number, seed)


Item = TypeVar("Item")


def shuffle(items: Sequence[Item], seed: int) -> list[Item]:
    """Items in a random order.

    >>> sorted(shuffle("abc", seed=0))
    ['a', 'b', 'c']
    """
    return [items[i] for i in np.random.default_rng(seed).permutation(len(items))]


def _some(items: tuple[Item, ...], number: int, seed: int) -> tuple[Item, ...]:
    """`number` items drawn at random, in their order."""
    return tuple(items[i] for i in sorted(shuffle(range(len(items)), seed)[:number]))


def _reservoir(samples: Iterator[Sample], number: int, seed: int) -> Iterator[Sample]:
    """Algorithm R (Vitter 1985)."""
    random = np.random.default_rng(seed)
    kept: list[tuple[int, Sample]] = []
    for position, sample in enumerate(samples):
        if position < number:
            kept.append((position, sample))
        elif (place := int(random.integers(0, position + 1))) < number:
            kept[place] = (position, sample)
    yield from (sample for _, sample in sorted(kept, key=lambda pair: pair[0]))
