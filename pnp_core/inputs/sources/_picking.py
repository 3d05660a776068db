"""Which files of a source are taken for pictures: by name, and by first bytes where the name does not tell."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from mimetypes import MimeTypes

from pnp_core.inputs.images import IMAGE_EXTENSIONS
from pnp_core.inputs.sources.base import FileRef, NotReadError
from pnp_core.inputs.sources.keys import printable, split_ending
from pnp_core.inputs.sources.links import EXCLUDED, MADE
from pnp_core.storage.first_bytes import refusal

_SERVER_FOLDERS = frozenset(
    (
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@tmp",
        "__macosx",
        "lost+found",
        "system volume information",
        "~snapshot",
    )
)
"""Thumbnails, deleted files and side-cars that file servers and systems keep beside one's own; lower case."""
# They begin like pictures too, and are none of their own: half-written files, copies put aside, GDAL's side-cars, and
# camera raw files, of which no more than a thumbnail could be read.
_NOT_LOOKED_AT = (
    *("crdownload", "download", "filepart", "part", "partial", "swp", "temp", "tmp"),
    *("bak", "backup", "copy", "jpg_original", "old", "orig", "original", "msk", "ovr"),
    *("preview", "thm", "thumb", "thumbnail"),
    *("3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "iiq", "kdc", "mef", "mos", "mrw", "nef", "nrw"),
    *("orf", "pef", "raf", "raw", "rw2", "sr2", "srf", "srw", "x3f"),
)
_LOOKED_AT = 4096
# The standard library's own list, not what a machine adds to it: a source holds the same pictures everywhere.
_TYPES = MimeTypes(filenames=()).types_map[True]


def excludes(patterns: Iterable[str], name: str) -> bool:
    """Whether a pattern fits a path, a folder on it or one of its names; `*` stands for anything, `/` included.

    >>> [excludes(["raw/*", "thumbs"], name) for name in ("raw/a.png", "b/thumbs/c.png", "thumbs.png")]
    [True, True, False]
    """
    parts = name.split("/")
    places = {*parts, *("/".join(parts[:end]) for end in range(1, len(parts) + 1))}
    return any(fnmatchcase(place, pattern.rstrip("/")) for pattern in patterns for place in places)


def server_folder(name: str) -> str | None:
    """The first folder on a path that a file server made, None when none did.

    >>> server_folder("a/@eaDir/b.jpg/thumb.jpg"), server_folder("@eaDir")
    ('@eaDir', None)
    """
    return next((part for part in name.split("/")[:-1] if part.lower() in _SERVER_FOLDERS), None)


@dataclass(frozen=True)
class Picker:
    """Decides what of a folder is taken, and counts what is not.

    Attributes:
        exclude: patterns of paths and names to leave out, see `excludes`.
        ignored: gets the number of files and folders passed over, by why.
        known: stamps of files of another machine that are known to be pictures, by name.
    """

    exclude: tuple[str, ...]
    ignored: Counter[str]
    known: Mapping[str, str] = field(default_factory=dict)

    def enters(self, folder: str) -> bool:
        """Whether a folder, by its path in the source, may hold pictures of the source."""
        if made := server_folder(f"{folder}/"):
            self.ignored[f"{MADE}{printable(made)}"] += 1
        elif excludes(self.exclude, folder):
            self.ignored[EXCLUDED] += 1
        else:
            return True
        return False

    def takes(self, name: str, file: FileRef, stamp: str | None = None) -> bool:
        """Whether a file, by its path in the source, is a picture or claims to be one.

        Endings of pictures, and no ending, are claims. Endings of something else are believed too; of a file with any
        other, such as `cat.jpg?w=640` or `cat.jpg.1`, the first bytes are looked at; on another machine, where that
        takes a request for each, only where a picture's ending is in the name.

        Args:
            stamp: what another machine tells of the file; None for one on this machine.
        """
        ending = split_ending(name)[1]
        if excludes(self.exclude, name):
            self.ignored[EXCLUDED] += 1
        elif ending in IMAGE_EXTENSIONS or not ending or self._begins_like_one(name, file, stamp):
            return True
        else:
            self.ignored[printable(f".{ending}")] += 1
        return False

    def _begins_like_one(self, name: str, file: FileRef, stamp: str | None) -> bool:
        if not (_may_be_image(name) if file.at_hand else claims_image(name)):
            return False
        if stamp is not None and self.known.get(printable(name)) == stamp:
            return True
        try:
            return _begins_like_a_image(file, _version(file) if stamp is None else stamp)
        except NotReadError:  # nothing to remember: it may be another time
            return False


def _may_be_image(name: str) -> bool:
    """Whether an ending leaves open what a file is; hidden files keep to themselves."""
    ending = split_ending(name)[1]
    known = _TYPES.get(f".{ending}", "image/")
    told = not known.startswith("image/") and known != "application/octet-stream"
    aside = ending in _NOT_LOOKED_AT or ending.endswith("~")
    return not (told or aside or name.rsplit("/", 1)[-1].startswith("."))


def _version(file: FileRef) -> str:
    """Changes whenever a file is written to or replaced, were it by one of the same size and time."""
    if not file.local:
        return file.stamp()
    try:
        status = os.stat(file.path)  # noqa: PTH116 - surrogates
    except OSError:
        return file.stamp()
    return f"{status.st_size}/{status.st_mtime_ns}/{status.st_ctime_ns}/{status.st_ino}"


# Of more such files than this, looked at in turn, nothing is remembered when their turn comes again: each is opened for
# its first bytes then, which on this machine costs little more than its stamp, and of a bucket the manifest knows.
@lru_cache(maxsize=100_000)
def _begins_like_a_image(file: FileRef, stamp: str) -> bool:
    """Whether a file's first bytes are a picture's; remembered as long as it does not change.

    Raises:
        NotReadError: there are none.
    """
    head = file.head(_LOOKED_AT)
    if not head:
        raise NotReadError
    return refusal(head) is None


def claims_image(name: str) -> bool:
    """Whether a name has a picture's ending, last or before something that was put behind it.

    >>> [claims_image(name) for name in ("a.png", "a.jpg?w=640", "a.jpg.1", "a.cls", "a.jpg.json")]
    [True, True, True, False, False]
    """
    ending = split_ending(name)[1]
    if ending in IMAGE_EXTENSIONS:
        return True
    match = _WITHIN.search(name.rsplit("/", 1)[-1])
    return match is not None and _may_be_image(name)


_WITHIN = re.compile(rf"\.(?:{'|'.join(sorted(IMAGE_EXTENSIONS))})(?![a-z0-9])", re.IGNORECASE)
