"""Which file of a folder is for people to look at, and what it may do in a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath

from pnp_core.errors import CorruptRunError
from pnp_core.report import compare_page, page
from pnp_core.report.embedding import digest, resource
from pnp_core.report.page import PAGE
from pnp_core.runs.review import stays_in
from pnp_core.storage.ownership import Kind, kind_of, may_be_ours
from pnp_core.storage.run_folder import RunFolder

PAGES: dict[Kind, str] = {"run": PAGE, "tables": "index.html", "comparison": "index.html"}
"""Of the folders that have a page. Only a folder of ours is opened: another's page is not ours to serve."""
_AGAIN: dict[Kind, str] = {
    "run": "run its eval, label or tune command again, it leaves one",
    "tables": "run `pnp-ovss tables` again, it leaves one",
    "comparison": "run `pnp-ovss compare` again, it leaves one",
    "corpus": "look at its batches, which have one each, in batches/",
    "export": "look at the run it was made of",
}
_HEAD = 4000
"""Bytes of a page in which it names its script."""


@dataclass(frozen=True)
class FoundPage:
    """A folder with a page.

    Attributes:
        name: path of the folder, relative to the one that was looked through.
        kind: None of a report that was carried away alone.
        reviewed: whether decisions are made on the page.
    """

    name: str
    kind: Kind | None
    reviewed: bool


def page_of(run: RunFolder) -> str:
    """The page of a run of eval, label or tune, of benchmark tables or of a comparison, relative to its folder.

    Raises:
        CorruptRunError: there is none.
    """
    kind = kind_of(run)
    # A report that was carried away alone is looked at too.
    file = PAGE if kind is None else PAGES.get(kind, PAGE)
    if not run.exists(file):
        raise CorruptRunError(f"'{run.url}' has no report ({file}): {_AGAIN[kind or 'run']}")
    return file


def takes_review(run: RunFolder, file: str) -> bool:
    """Whether decisions are made on a page: those of `compare`, `tune` and `tables` have none to make."""
    try:
        return _report_digest().encode() in run.get_part(file, 0, _HEAD)
    except CorruptRunError:
        return False


def policy_of(html: bytes) -> str:
    """The content security policy that a page is served under: no script runs as ours but the ones of this version.

    What lies in a folder may be anybody's page. A script that is not known, of another version or of somebody, runs
    as if it were from elsewhere: it reads nothing of this place, asks for nothing, and keeps nothing in the browser.
    """
    known = (_report_digest(), _compare_digest(), digest(resource("runs.js")))
    rules = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    if b"<script" in html and not any(one.encode() in html[:_HEAD] for one in known):
        return f"{rules}script-src 'unsafe-inline'; sandbox allow-scripts allow-downloads"
    return f"{rules}connect-src 'self'; script-src '{known[0]}' '{known[1]}' '{known[2]}'"


@cache
def _report_digest() -> str:
    return digest(page.page_script())


@cache
def _compare_digest() -> str:
    return digest(compare_page.page_script())


def pages_below(folder: RunFolder, depth: int) -> Iterator[FoundPage]:
    """Folders below one that have a page, so many folders down at most; none behind a link that leads out.

    Nothing is looked for in folders of ours, but in the batches of a corpus, and nothing in hidden ones.
    """
    return _pages(folder, "", depth)


def _pages(folder: RunFolder, name: str, depth: int) -> Iterator[FoundPage]:
    place = RunFolder(folder.below(name)) if name else folder
    entries = _entries(folder, place)
    kind = kind_of(place) if may_be_ours(entries) else None
    file = PAGE if kind is None else PAGES.get(kind)
    there = file is not None and PurePosixPath(file).parts[0] in entries and place.exists(file)
    if name and file and there and stays_in(folder, f"{name}/{file}"):
        yield FoundPage(name, kind, takes_review(place, file))
    if depth == 0 or kind not in (None, "corpus"):
        return
    for inner in sorted(entry for entry, is_folder in entries.items() if is_folder):
        # fsspec takes "::" for file systems within each other.
        if inner.startswith(".") or "::" in inner or (kind == "corpus" and inner != "batches"):
            continue
        yield from _pages(folder, f"{name}/{inner}" if name else inner, depth - 1)


def _entries(folder: RunFolder, place: RunFolder) -> dict[str, bool]:
    """What lies in a folder, and whether it is a folder; nothing where it cannot be listed."""
    try:
        if not place.local:
            found = place.fs.ls(place.root, detail=True)
            return {PurePosixPath(one["name"]).name: one["type"] == "directory" for one in found}
        with os.scandir(place.root) as entries:
            return {one.name: one.is_dir() and not _leads_out(folder, one) for one in entries}
    except OSError:
        return {}


def _leads_out(folder: RunFolder, entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not stays_in(folder, os.path.relpath(entry.path, folder.root))
