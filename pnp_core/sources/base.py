"""What every kind of source offers, and reading from any fsspec file system."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import braceexpand
import fsspec
from fsspec.implementations.local import LocalFileSystem

from pnp_core.errors import SourceError
from pnp_core.records import Sample
from pnp_core.sources.keys import printable, safe_ending
from pnp_core.sources.links import REFUSED, open_below

MAX_BYTES = 512 * 2**20
"""Encoded pictures with more bytes are not read."""
_CHUNK = 1 << 20
_URL = re.compile(r"([a-z0-9+.-]+::)*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_VOLATILE = frozenset(("atime", "time"))
_LOOK = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_IS_FOLDER = "cannot be read: it is a folder"
_IS_DEVICE = "cannot be read: it is a pipe or device, not a file"


@runtime_checkable
class Source(Protocol):
    """Pictures to label, listed but not read."""

    @property
    def identity(self) -> str:
        """Where they are, for people and for telling runs apart."""
        ...

    @property
    def ignored(self) -> Counter[str]:
        """File ending -> number of files passed over because they are no pictures; other kinds by their name."""
        ...

    def digest(self) -> str:
        """Changes when a file is added, removed, resized, touched or becomes readable."""
        ...

    def samples(self) -> Iterator[Sample]:
        """Every picture with a unique, path-safe key; one in memory at a time.

        A picture that cannot be read comes with its `fault` instead of bytes.
        """
        ...


def is_url(text: str) -> bool:
    """Whether a text starts like a URL; everything else is a path.

    >>> is_url("s3://bucket/a.png"), is_url("zip://a.png::/x.zip"), is_url("a::b.png"), is_url("/a/b://c")
    (True, True, False, False)
    """
    return _URL.match(text) is not None


class NotReadError(Exception):
    """A picture that is not read, and why, in one line."""


def reason(error: Exception) -> str:
    """What a file system's exception means, in one line; each package raises types of its own.

    >>> reason(FileNotFoundError("/bucket/a.png"))
    'No such file or directory'
    """
    known = {FileNotFoundError: "No such file or directory", PermissionError: "Permission denied"}
    told = getattr(error, "strerror", None) or known.get(type(error))
    return told or f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def marks(info: dict[str, Any]) -> str:
    """All that a file system tells of a file and that changes only when the file does."""
    plain = {k: v for k, v in info.items() if isinstance(v, str | int | float | datetime) and k not in _VOLATILE}
    return "/".join(f"{name}={plain[name]}" for name in sorted(plain))


@dataclass(frozen=True)
class FileRef:
    """A file on some fsspec file system.

    Attributes:
        within: a local folder, without links itself: what is read must lie below it after all links.
    """

    fs: Any
    path: str
    within: str | None = None

    @classmethod
    def of(cls, url: str) -> FileRef:
        """A path or URL.

        Raises:
            SourceError: the file system is unknown, needs a package that is missing, or cannot be opened.
        """
        if not is_url(url):
            # pathlib's expanduser fails on names such as `~cat.png`
            return cls(LocalFileSystem(), os.path.abspath(os.path.expanduser(url)))  # noqa: PTH100, PTH111
        try:
            return cls(*fsspec.core.url_to_fs(url))
        except Exception as error:  # opening may read, for one an archive in a chained URL
            raise SourceError(f"cannot open '{url}': {reason(error)}") from error

    @property
    def local(self) -> bool:
        """Whether it is on this machine's disks."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def folder(self) -> FileRef:
        """The folder it lies in."""
        return FileRef(self.fs, self.path.rpartition("/")[0])

    def kind(self) -> str | None:
        """`file`, `directory` or `other` (pipes, devices), None when nothing is there.

        Raises:
            SourceError: the file system does not tell.
        """
        try:
            return self.fs.info(self.path).get("type", "file")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:  # packages raise types of their own
            raise SourceError(f"'{printable(self.path)}' cannot be read: {reason(error)}") from error

    def stamp(self) -> str:
        """Changes when the file changes: size and time of change, or what the file system has instead."""
        try:
            info = self.fs.info(self.path)
        except Exception as error:  # packages raise types of their own
            return f"unreadable: {type(error).__name__}"
        if self.local:
            return f"{info['size']}/{info['mtime']}/{os.access(self.path, os.R_OK)}"
        return marks(info)

    def read(self) -> bytes:
        """Content, at most `MAX_BYTES`.

        Raises:
            NotReadError: missing, not readable, too large, no regular file, or a link that leaves its folder.
        """
        try:
            if self.within is not None:
                return self._read_below(self.within)
            info = self.fs.info(self.path)
            if info.get("type", "file") == "directory":
                self.fs.ls(self.path, detail=False)  # says so when it may not be read
                raise NotReadError(_IS_FOLDER)
            if info.get("type", "file") != "file":
                raise NotReadError(_IS_DEVICE)  # it might never end
            check_size(info.get("size"))
            return self.fs.cat_file(self.path) if info.get("size") is not None else self._read_chunks()
        except NotReadError:
            raise
        except Exception as error:  # packages raise types of their own
            raise NotReadError(f"cannot be read: {reason(error)}") from error

    def head(self, length: int) -> bytes:
        """The first bytes; none where they cannot be read."""
        try:
            if not self.local:
                return self.fs.cat_file(self.path, start=0, end=length)
            # A pipe is not waited for.
            opened = open_below(self.within, self.path) if self.within else os.open(self.path, _LOOK)
        except Exception:  # packages raise types of their own
            return b""
        if opened is None:
            return b""
        try:
            return os.read(opened, length) if stat.S_ISREG(os.fstat(opened).st_mode) else b""
        except OSError:
            return b""
        finally:
            os.close(opened)

    def _read_below(self, root: str) -> bytes:
        """Content of a file that lies below a folder, whatever is put in its place meanwhile."""
        opened = open_below(root, self.path)
        if opened is None:
            raise NotReadError(REFUSED)
        try:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode):
                raise NotReadError(_IS_FOLDER if stat.S_ISDIR(status.st_mode) else _IS_DEVICE)
            check_size(status.st_size)
            with os.fdopen(opened, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(opened)

    def _read_chunks(self) -> bytes:
        """Content of a file whose size is known only at its end."""
        content = bytearray()
        with self.fs.open(self.path, "rb") as file:
            while chunk := file.read(_CHUNK):
                content += chunk
                check_size(len(content))
        return bytes(content)


def check_size(size: int | None) -> None:
    """Raise NotReadError when a picture has too many bytes."""
    if size is not None and size > MAX_BYTES:
        raise NotReadError(f"{size} bytes are over the limit of {MAX_BYTES} for one picture")


def file_sample(file: FileRef, name: str, key: str) -> Sample:
    """A picture file as a sample, with a fault when it cannot be read."""
    try:
        return Sample(key, file.read(), safe_ending(name), printable(name))
    except NotReadError as error:
        return Sample(key, b"", safe_ending(name), printable(name), fault=str(error))


def digest_of(lines: Iterable[str]) -> str:
    """Digest of what a source is made of."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def expand(pattern: str) -> list[FileRef]:
    """Files named by a path or URL with braces and wildcards, sorted; hidden ones match no wildcard.

    Raises:
        SourceError: one of them does not exist, or the braces are not balanced.
    """
    literal = FileRef.of(pattern)
    if literal.kind() == "file":  # whatever its name looks like
        return [literal]
    try:
        parts = list(braceexpand.braceexpand(pattern))
    except ValueError as error:
        raise SourceError(f"'{pattern}' cannot be understood: {error}") from error
    found = {(file.path, str(file.fs.protocol)): file for part in parts for file in _matches(part)}
    files = [found[place] for place in sorted(found)]
    missing = [printable(file.path) for file in files if file.kind() != "file"]
    if missing:
        raise SourceError(f"'{missing[0]}' does not exist" + (f" (and {len(missing) - 1} more)" if missing[1:] else ""))
    return files


def _matches(pattern: str) -> list[FileRef]:
    """Files that match wildcards; the name itself when there are none or nothing matches."""
    file = FileRef.of(pattern)
    if not glob.has_magic(file.path):
        return [file]
    names = glob.glob(file.path, recursive=True) if file.local else file.fs.glob(file.path)
    seen = [name for name in names if file.local or not name.rsplit("/", 1)[-1].startswith(".")]
    return [FileRef(file.fs, name) for name in seen] or [file]


def common_folder(files: list[FileRef]) -> str:
    """The deepest folder that holds all files, with a slash at its end."""
    folders = [file.path.rsplit("/", 1)[0] + "/" for file in files]
    common = min(folders, key=len)
    while common and not all(folder.startswith(common) for folder in folders):
        above, slash, _ = common[:-1].rpartition("/")
        common = above + slash
    return common
