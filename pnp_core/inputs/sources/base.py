"""What every kind of source offers, and reading from any fsspec file system."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import braceexpand
import fsspec
from fsspec.asyn import AsyncFileSystem, sync
from fsspec.implementations.local import LocalFileSystem

from pnp_core.data import Sample
from pnp_core.errors import SourceError, in_words
from pnp_core.inputs.sources.keys import printable, safe_ending
from pnp_core.inputs.sources.links import REFUSED, open_below

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

    @property
    def listed(self) -> int | None:
        """Number of pictures, faulty ones included; None where only reading them all tells."""
        ...

    def digest(self) -> str:
        """Changes when a file is added, removed, resized, touched or becomes readable."""
        ...

    def samples(self) -> Iterator[Sample]:
        """Every picture with a unique, path-safe key; one in memory at a time.

        A picture that cannot be read comes with its `fault` instead of bytes.
        """
        ...

    def subset(self, number: int, seed: int) -> Iterator[Sample]:
        """So many pictures drawn at random, in their order; all when there are not more.

        Only those are read where that is possible; otherwise all are, once from end to end, with no more than
        `number` in memory.
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

    @property
    def may_pass(self) -> bool:
        """Whether it may be another time: the other machine did not answer, or said that it is busy."""
        return passes(self.__cause__)


def passes(error: BaseException | None) -> bool:
    """Whether an exception of a file system means that another machine did not answer, or said that it is busy."""
    status = getattr(error, "status", None) or getattr(error, "code", None)  # of gcsfs
    known = not _PASSING.isdisjoint(kind.__name__ for kind in type(error).__mro__)
    return known or status in _BUSY or hasattr(error, "host") or getattr(error, "errno", None) in _UNREACHABLE


_BUSY = (408, 425, 429, 500, 502, 503, 504)
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)
# By name, for the packages are imported with the first picture that needs them.
_PASSING = frozenset(
    (
        *("TimeoutError", "ConnectionError", "EOFError", "gaierror"),  # Python's own; the second of requests too
        *("ServerDisconnectedError", "ClientPayloadError"),  # of aiohttp
        *("HTTPClientError", "ServiceRequestError", "ServiceResponseError"),  # of botocore and Azure
        *("error_temp", "SSHException"),  # of ftplib and paramiko
    )
)


def reason(error: Exception) -> str:
    """What a file system's exception means, in one line; each package raises types of its own.

    >>> reason(FileNotFoundError("/bucket/a.png"))
    'No such file or directory'
    """
    known = {FileNotFoundError: "No such file or directory", PermissionError: "Permission denied"}
    if status := getattr(error, "status", None):
        return f"HTTP {status} {getattr(error, 'message', '')}".rstrip()
    if (host := getattr(error, "host", None)) and (port := getattr(error, "port", None)):
        wrong = getattr(error, "certificate_error", None)
        return f"the certificate of {host} is not trusted" if wrong else f"cannot connect to {host}:{port}"
    if type(error).__name__ == "ClientPayloadError":  # of aiohttp, which is imported with the first URL only
        return "the answer was cut short"
    return getattr(error, "strerror", None) or known.get(type(error)) or in_words(error)


def marks(info: dict[str, Any]) -> str:
    """All that a file system tells of a file and that changes only when the file does."""
    plain = {k: v for k, v in info.items() if isinstance(v, str | int | float | datetime) and k not in _VOLATILE}
    return "/".join(f"{name}={plain[name]}" for name in sorted(plain))


@dataclass(frozen=True)
class FileRef:
    """A file on some fsspec file system.

    Attributes:
        within: a local folder, without links itself: what is read must lie below it after all links.
        seconds: limit for each question to another machine; that of the file system when None.
    """

    fs: Any
    path: str
    within: str | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, url: str, seconds: float | None = None) -> FileRef:
        """A path or URL.

        Args:
            seconds: limit for each question to another machine.

        Raises:
            SourceError: the file system is unknown, needs a package that is missing, or cannot be opened.
        """
        if not is_url(url):
            # pathlib's expanduser fails on names such as `~cat.png`
            return cls(LocalFileSystem(), os.path.abspath(os.path.expanduser(url)))  # noqa: PTH100, PTH111
        try:
            return cls(*fsspec.core.url_to_fs(url), seconds=seconds)
        except Exception as error:  # opening may read, for one an archive in a chained URL
            raise SourceError(f"cannot open '{url}': {reason(error)}") from error

    @property
    def local(self) -> bool:
        """Whether it is on this machine's disks."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def at_hand(self) -> bool:
        """Whether it is on this machine, or in an archive, which is there or not as a whole."""
        names = self.fs.protocol
        return self.local or not {*([names] if isinstance(names, str) else names)}.isdisjoint(_NEAR)

    @property
    def folder(self) -> FileRef:
        """The folder it lies in."""
        return replace(self, path=self.path.rpartition("/")[0])

    @property
    def concurrent(self) -> bool:
        """Whether several threads may ask at a time, each with a limit; caches pass for it and are not."""
        return isinstance(self.fs, AsyncFileSystem) and self.fs.async_impl

    def on_this_thread(self) -> FileRef:
        """The file by a connection of the thread's own: of ftp and others one must not be shared by two.

        Raises:
            SourceError: there is none.
        """
        return self if self.at_hand or self.concurrent else self.reopened()

    def reopened(self, **options: bool) -> FileRef:
        """The file by a file system that is made anew, as ftp's is by connecting.

        Args:
            options: of making it; fsspec keeps one for each thread.

        Raises:
            SourceError: it cannot be opened.
        """
        try:
            return replace(self, fs=type(self.fs)(*self.fs.storage_args, **self.fs.storage_options, **options))
        except Exception as error:  # packages raise types of their own
            raise SourceError(f"cannot open '{printable(self.path)}': {reason(error)}") from error

    def kind(self) -> str | None:
        """`file`, `directory` or `other` (pipes, devices), None when nothing is there.

        Raises:
            SourceError: the file system does not tell.
        """
        try:
            return self._info().get("type", "file")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:  # packages raise types of their own
            raise SourceError(f"'{printable(self.path)}' cannot be read: {reason(error)}") from error

    def stamp(self) -> str:
        """Changes when the file changes: size and time of change, or what the file system has instead."""
        try:
            info = self._info()
        except Exception as error:  # packages raise types of their own
            # By its type, as runs of before the words have it.
            return f"unreadable: {type(error).__name__ if self.local else reason(error)}"
        if self.local:
            return f"{info['size']}/{info['mtime']}/{os.access(self.path, os.R_OK)}"
        return marks(info)

    def _info(self) -> dict[str, Any]:
        return self.fs.info(self.path, **self._limit())

    def _limit(self) -> dict[str, float]:
        """What fsspec's file systems that wait for other machines take as a limit."""
        return {"timeout": self.seconds} if self.seconds and self.concurrent else {}

    def read(self) -> bytes:
        """Content, at most `MAX_BYTES`.

        Raises:
            NotReadError: missing, not readable, too large, no regular file, or a link that leaves its folder.
        """
        try:
            if self.within is not None:
                return self._read_below(self.within)
            if "http" in self.fs.protocol:
                got: Any = sync(self.fs.loop, _get, self.fs, self.path, timeout=self.seconds)
                return got
            info = self._info()
            if info.get("type", "file") == "directory":
                self.fs.ls(self.path, detail=False)  # says so when it may not be read
                raise NotReadError(_IS_FOLDER)
            if info.get("type", "file") != "file":
                raise NotReadError(_IS_DEVICE)  # it might never end
            check_size(info.get("size"))
            known = info.get("size") is not None
            return self.fs.cat_file(self.path, **self._limit()) if known else self._read_chunks()
        except NotReadError:
            raise
        except Exception as error:  # packages raise types of their own
            raise NotReadError(f"cannot be read: {reason(error)}") from error

    def head(self, length: int) -> bytes:
        """The first bytes; none where they cannot be read."""
        try:
            if not self.local:
                return self.fs.cat_file(self.path, start=0, end=length, **self._limit())
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


async def _get(fs: Any, url: str) -> bytes:
    """What a web server has, in one question: fsspec would ask for its size before, and take any error for no file."""
    session = await fs.set_session()
    async with session.get(fs.encode_url(url), **fs.kwargs) as response:
        response.raise_for_status()
        check_size(response.content_length)
        content = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            content += chunk
            check_size(len(content))
    return bytes(content)


def check_size(size: int | None) -> None:
    """Raise NotReadError when a picture has too many bytes."""
    if size is not None and size > MAX_BYTES:
        raise NotReadError(f"{size} bytes are over the limit of {MAX_BYTES} for one picture")


def is_near(url: str) -> bool:
    """Whether a URL leads to this machine.

    >>> is_near("file:///a.png"), is_near("https://host/a.png"), is_near("zip://a.png::http://host/x.zip")
    (True, False, False)
    """
    return all(part.partition("://")[0] in _NEAR for part in url.split("::") if "://" in part)


_NEAR = ("file", "local", "memory", "zip", "tar")


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
    by_origin = {(file.path, str(file.fs.protocol)): file for part in parts for file in _matches(part)}
    files = [by_origin[origin] for origin in sorted(by_origin)]
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
