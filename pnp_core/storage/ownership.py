"""Whose an output folder is, and who is writing to it.

A folder is ours by a file that we put into it first of all, ``.pnp-ovss/folder.json``. One that is not empty and not
ours is refused before anything in it is touched. Run folders, corpora and tables of versions that wrote no such file
are known by their shard index, completion records and manifests, and are taken over.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Literal

from filelock import FileLock, Timeout

from pnp_core.errors import FolderInUseError, ForeignFilesError, OutputError
from pnp_core.storage.completion import DONE, QUARANTINE, CompletionRecord
from pnp_core.storage.files import MARK, Files
from pnp_core.storage.ledger import LEDGER, Ledger, drop_missing
from pnp_core.storage.seals import json_bytes, parsed, sealed, unsealed
from pnp_core.storage.shards import holds_shards

Kind = Literal["run", "corpus", "export", "tables", "comparison"]
WHAT: dict[Kind, str] = {
    "run": "a run of eval, label or tune",
    "corpus": "the labels of a corpus",
    "export": "an export",
    "tables": "benchmark tables",
    "comparison": "a comparison of runs",
}
FOLDER = f"{MARK}/folder.json"
LOCK, WRITER = f"{MARK}/lock", f"{MARK}/writer.json"
_NO_FILES = frozenset((".DS_Store", "Thumbs.db", "desktop.ini", "lost+found", MARK))
"""What systems put into folders by themselves."""
_STAGES = ("salience", "masks", "png", "scores", "tuning-maps", "tuning-pictures")
_TELLING = frozenset(
    (MARK, "shards", "export.json", "export.begun", "latest.json", "progress.json", "tables.json", *_STAGES)
)
"""What `kind_of` looks at: a folder with none of these is not ours."""
_PICTURES = re.compile(r"report/pictures/[0-9a-f]{16}(?=/)")
"""Folders of the pictures beside a report."""
_STAGE_FOLDER = re.compile(rf"((?:{'|'.join(_STAGES)})/[0-9a-f]{{16}})/")
_NAMES: dict[Kind, str] = {
    "run": r"(run|tune)\.json|tuning\.png|evaluations/[0-9a-f]{16}/(run|scores)\.json"
    r"|tuning/[0-9a-f]{16}/[0-9a-f]{16}/(group-\d+|trials|(compare|looks)-[0-9a-f]{16})\.parquet|collected\.parquet",
    "corpus": r"(latest|progress)\.json|collected\.parquet|(manifests|contents|changes)/\d{6}\.parquet|\.lock",
    "export": r"export\.(json|begun)|index\.csv|classes\.csv|annotations\.json",
    "tables": r"tables\.json",
    "comparison": r"compare\.json",
}
"""What is written besides shards and what is made of them, by names that only we give."""


def kind_of(place: Files) -> Kind | None:
    """What a folder of ours is, by what we left in it; None when it is not ours."""
    kind = (unsealed(place.find(FOLDER) or b"") or {}).get("kind")
    if kind in WHAT:
        return kind
    # Of a version before, or damaged: what lies there tells.
    if "pnp-ovss export" in (_object(place, file).get("made_by") for file in ("export.json", "export.begun")):
        return "export"
    if any({"run", "source", "manifest"} <= _object(place, file).keys() for file in ("latest.json", "progress.json")):
        return "corpus"
    if holds_shards(place) or _holds_completion_record(place):
        return "run"
    files = _object(place, "tables.json").get("files")
    return "tables" if isinstance(files, list) and {"tables.json", "tables.md"} <= set(files) else None


def may_be_ours(names: Collection[str]) -> bool:
    """Whether a folder with entries of these names is worth to be asked what it is, which takes reading in it."""
    return not _TELLING.isdisjoint(names)


def _object(place: Files, file: str) -> dict[str, Any]:
    return parsed(place.find(file) or b"") or {}


def _holds_completion_record(place: Files) -> bool:
    records = (name for stage in _STAGES for name in place.glob(f"{stage}/*/*.{DONE}"))
    return any(CompletionRecord.of(place.find(name) or b"") for name in records)


def claim(url: str, kind: Kind) -> None:
    """Make a folder ours, unless it is already.

    Raises:
        ForeignFilesError: it is not empty and not ours, or it is of another kind. Nothing was touched.
        OutputError: it cannot be written.
    """
    place = Files(url)
    check_ours(place, kind)
    # The mark comes last: what has one has a ledger.
    if Ledger.known(place) is None:
        _take_over(place, kind).save()
    if unsealed(place.find(FOLDER) or b"") is None:
        place.put(FOLDER, sealed({"made_by": "pnp-ovss", "kind": kind, "format": 1}))
    for subset in place.glob("subsets/*") if kind == "run" else ():
        url = place.below(str(PurePosixPath(subset)))
        if kind_of(Files(url)) == "run" and Ledger.known(Files(url)) is None:
            claim(url, "run")


def ledger_of(place: Files) -> Ledger:
    """What is ours in a folder, also when it has no ledger or that is damaged."""
    return Ledger.known(place) or _take_over(place, kind_of(place) or "run")


def check_ours(place: Files, kind: Kind) -> None:
    """Find out whether a folder may be written to, and touch nothing.

    Raises:
        ForeignFilesError: it is not empty and not ours, or it is of another kind.
    """
    found = kind_of(place)
    if found is None and (stranger := _first_file(place)):
        raise ForeignFilesError(
            f"'{place.url}' is not empty ('{stranger}') and holds nothing that pnp-ovss has written: choose another "
            f"--out, or an empty folder"
        )
    if found not in (None, kind):
        raise ForeignFilesError(f"'{place.url}' holds {WHAT[found]}, not {WHAT[kind]}: choose another --out")
    if found == "export" and not place.exists(FOLDER) and not place.exists(LEDGER):
        raise ForeignFilesError(
            f"'{place.url}' was exported by a version that kept no list of its files, so that none can be written "
            f"over: choose another --out"
        )


def _first_file(place: Files) -> str | None:
    """Something that lies in a folder; None when it is empty or not there.

    Raises:
        OutputError: it cannot be listed.
        ForeignFilesError: it is a file.
    """
    try:
        names = sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in place.fs.ls(place.root, detail=False))
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise OutputError(f"cannot write '{place.root}': {error.strerror}") from error
    except OSError as error:
        raise OutputError(f"cannot read '{place.root}': {error.strerror or error}") from error
    if place.fs.isfile(place.root):
        raise ForeignFilesError(f"'{place.url}' is a file, not a folder: choose another --out")
    return next((name for name in names if name not in _NO_FILES), None)


def _take_over(place: Files, kind: Kind) -> Ledger:
    """The ledger of a folder that has none, or whose ledger is damaged: by the names that we give, and by content."""
    names = [name for name in place.names() if not name.startswith(f"{MARK}/")] if place.exists("") else []
    ledger = Ledger(place)
    ours = {name for name in names if re.fullmatch(_NAMES[kind], name)}
    if kind == "run":
        # A stage's folder may be a link to another disk, which a walk does not follow.
        inner = (place.glob(f"{above}{stage}/*/*") for above in ("", f"{QUARANTINE}/") for stage in _STAGES)
        for name in (name for found in inner for name in found):
            if match := _STAGE_FOLDER.match(name.removeprefix(f"{QUARANTINE}/")):
                ledger.folders |= {match[1], f"{QUARANTINE}/{match[1]}"}
        ledger.folders |= {match[0] for match in map(_PICTURES.match, names) if match}
        if any(name.startswith("shards/") for name in names):
            ledger.folders.add("shards")
        ours |= _results(place)
    if kind == "tables":
        tables = _object(place, "tables.json").get("files") or []
        ours |= {name for name in names if name in tables}
    if kind == "comparison" and b"PnP-OVSS comparison" in (place.find("index.html") or b""):
        ours.add("index.html")
    ledger.files = dict.fromkeys(sorted(ours), ())
    return ledger


def _results(place: Files) -> set[str]:
    """Results of a run whose names others give too: ours when they look like it."""
    marks = {"report/index.html": b"pnp-ovss", "best.yaml": b"# Chosen by `pnp-ovss tune`"}
    found = {name for name, mark in marks.items() if mark in (place.find(name) or b"")}
    if found or "fingerprints" in _object(place, "run.json"):
        found |= {name for name in ("contact_sheet.png",) if place.exists(name)}
    if {"miou", "per_class_iou", "pixels_ignored"} <= _object(place, "scores.json").keys():
        found.add("scores.json")
    return found


@contextmanager
def writing(url: str, kind: Kind) -> Iterator[None]:
    """Be the only one of this machine that writes to a folder, and have it ours, while the block runs.

    A process that already writes to it may do so again inside. On file systems other than local ones nobody is kept
    out.

    Raises:
        ForeignFilesError: it is not empty and not ours, or it is of another kind. Nothing was touched.
        FolderInUseError: another command writes to it.
        OutputError: it cannot be written.
    """
    place = Files(url)
    check_ours(place, kind)
    if not place.local:
        claim(url, kind)
        yield
        return
    lock = _lock(place)
    try:
        if lock.lock_counter == 1:
            _sign(place)
            place.clear_half_written()
            if kind == "run":  # of a corpus nothing that is missing may be forgotten: it is not made again
                drop_missing(place)
        claim(url, kind)
        yield
    finally:
        if lock.lock_counter == 1:
            with suppress(OutputError):
                place.delete(WRITER)
        lock.release()


def check_writable(url: str, kind: Kind) -> None:
    """Make a folder ours, if it is not, and find out whether it can be written to now.

    Raises:
        OutputError: as `writing`.
    """
    with writing(url, kind):
        pass


def _lock(place: Files) -> FileLock:
    """The folder's lock, held. It ends with the process that holds it, however that ends."""
    try:
        os.makedirs(place.path(MARK), exist_ok=True)  # noqa: PTH103 - the path is fsspec's
        lock = FileLock(place.path(LOCK), timeout=0, is_singleton=True, thread_local=False)
        lock.acquire()
    except Timeout as error:
        raise FolderInUseError(
            f"another command is writing to '{place.url}'{_writer(place)}; the same command continues when it has ended"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot write '{place.root}': {error.strerror or error}") from error
    return lock


def _sign(place: Files) -> None:
    """Say who holds the lock."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    place.put(WRITER, json_bytes({"pid": os.getpid(), "host": socket.gethostname(), "started": started}))


def _writer(place: Files) -> str:
    """Who holds the lock, for people."""
    record = _object(place, WRITER)
    if not {"pid", "host", "started"} <= record.keys():
        return ""
    return f" (process {record['pid']} on {record['host']}, since {record['started']})"
