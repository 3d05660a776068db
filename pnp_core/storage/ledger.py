"""What in a folder is ours: the files we wrote, with digests, and the folders that we made.

A name is put into the ledger before anything is written to it, and only when nothing is there yet. So whatever a
killed command leaves is known, and what is not in the ledger is somebody else's: it is never written over, never
deleted. A digest is kept of the content a file has, and of the one it had before: a reader sees one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from threading import RLock
from typing import Any

from pnp_core.errors import ForeignFilesError
from pnp_core.storage.files import MARK, Files
from pnp_core.storage.seals import sealed, sha256, unsealed

LEDGER = f"{MARK}/files.json"
# One command writes to a folder at a time (see `pnp_core.storage.ownership`), but it may have threads.
_WRITING = RLock()


@dataclass
class Ledger:
    """The ledger of a folder, as it was read.

    Attributes:
        files: relative path -> digests of what was written last and before that; none of a file being streamed.
        folders: relative paths of folders that only we put our files into, by names that follow from the shards.
    """

    place: Files
    name: str = LEDGER
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, place: Files, name: str = LEDGER) -> Ledger:
        """The ledger as it is; an empty one when there is none or it is damaged."""
        return cls.known(place, name) or cls(place, name)

    @classmethod
    def known(cls, place: Files, name: str = LEDGER) -> Ledger | None:
        """The ledger, None when there is none or it is damaged."""
        value = unsealed(place.find(name) or b"")
        if value is None:
            return None
        files = {path: tuple(digests) for path, digests in value["files"].items()}
        if not all(map(stays_inside, (*files, *value["folders"]))):  # a folder may have come from anybody
            return None
        return cls(place, name, files, set(value["folders"]))

    def save(self) -> None:
        """Write it."""
        value: dict[str, Any] = {"files": {path: list(digests) for path, digests in self.files.items()}}
        self.place.put(self.name, sealed({**value, "folders": sorted(self.folders)}))


def stays_inside(path: str) -> bool:
    """Whether a relative path leads to nothing outside of its folder.

    >>> stays_inside("masks/a.png"), stays_inside("../a.png"), stays_inside("/etc/passwd")
    (True, False, False)
    """
    parts = PurePosixPath(path).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts


def claim_files(place: Files, digests: Mapping[str, str | None], name: str = LEDGER) -> None:
    """Make names ours before something is written to them.

    Args:
        digests: of what is going to be written; None when that shows at its end.

    Raises:
        ForeignFilesError: something is there that we did not write.
    """
    with _WRITING:
        ledger = Ledger.read(place, name)
        for path, digest in digests.items():
            if path not in ledger.files and place.exists(path):
                raise ForeignFilesError.at(place.path(path))
            before = ledger.files.get(path, ())
            ledger.files[path] = tuple(dict.fromkeys((digest, *before)))[:2] if digest else before
        ledger.save()


def settle_file(place: Files, path: str, digest: str, name: str = LEDGER) -> None:
    """Note what was written to a name that is ours."""
    with _WRITING:
        ledger = Ledger.read(place, name)
        ledger.files[path] = (digest,)
        ledger.save()


def claim_folders(place: Files, folders: Iterable[str]) -> None:
    """Make folders ours, to write files into whose names follow from the shards.

    Raises:
        ForeignFilesError: something is there that we did not write.
    """
    with _WRITING:
        ledger = Ledger.read(place)
        new = [folder for folder in folders if folder not in ledger.folders]
        for folder in new:
            if place.exists(folder) and (strangers := place.names(folder)):
                raise ForeignFilesError.at(place.path(strangers[0]))
        if new:
            ledger.folders.update(new)
            ledger.save()


def forget_files(place: Files, paths: Iterable[str], damaged_too: bool = False) -> None:
    """Delete files that are ours; others of these names stay, and so do files that somebody has changed.

    Args:
        damaged_too: also those whose content is not what was written, or was never known.
    """
    with _WRITING:
        ledger = Ledger.read(place)
        ours = [path for path in paths if path in ledger.files]
        for path in ours:
            data = place.find(path)
            if data is None or damaged_too or sha256(data) in ledger.files[path]:
                place.delete(path)
                del ledger.files[path]
        if ours:
            ledger.save()


def drop_missing(place: Files) -> None:
    """Forget names that nothing was written to in the end, by commands that were killed."""
    with _WRITING:
        ledger = Ledger.known(place)
        missing = [path for path in ledger.files if not place.exists(path)] if ledger else []
        if ledger and missing:
            ledger.files = {path: digests for path, digests in ledger.files.items() if path not in missing}
            ledger.save()
