"""Files below a local folder or an fsspec URL, read and written in one step; whose they are is asked elsewhere."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from time import time
from typing import BinaryIO, cast

import fsspec
import psutil
from fsspec.implementations.local import LocalFileSystem

from pnp_core.errors import CorruptRunError, OutputError

MARK = ".pnp-ovss"
"""Folder in every folder of ours: what it is, which files in it are ours, who is at work, files half written."""
HALF_WRITTEN = f"{MARK}/half-written"
_FORGOTTEN = 24 * 3600.0
"""Seconds after which a half-written file is taken for left over, whoever wrote it."""


class Files:
    """Reads and atomic writes below one local folder or fsspec URL."""

    def __init__(self, url: str) -> None:
        """Open (not create) a folder.

        Raises:
            OutputError: the URL's file system is unknown or needs a package that is missing.
        """
        try:
            # Other machines write here too, so nothing may be remembered of what lies there.
            self.fs, self.root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise OutputError(f"cannot open output '{url}': {error}") from error
        self.url = url
        self.local = isinstance(self.fs, LocalFileSystem)

    def path(self, relative: str) -> str:
        """Full path of a file of this folder on its file system."""
        return str(PurePosixPath(self.root) / relative)

    def below(self, relative: str) -> str:
        """URL of a folder in this one."""
        return f"{self.url.rstrip('/')}/{relative}"

    def exists(self, relative: str) -> bool:
        """Whether a file or folder is there."""
        return self.fs.exists(self.path(relative))

    def size(self, relative: str) -> int | None:
        """Bytes of a file, None when it is not there."""
        try:
            return self.fs.size(self.path(relative))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def get(self, relative: str) -> bytes:
        """Content of a file, whatever it is worth.

        Raises:
            CorruptRunError: the file is missing or cannot be read.
        """
        return self.get_part(relative, None, None)

    def get_part(self, relative: str, start: int | None, end: int | None) -> bytes:
        """Some bytes of a file, fewer where it ends before.

        Raises:
            CorruptRunError: the file is missing or cannot be read.
        """
        try:
            return self.fs.cat_file(self.path(relative), start=start, end=end)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CorruptRunError(
                f"'{self.path(relative)}' is missing; the command that made it makes it again"
            ) from error
        except (IsADirectoryError, PermissionError) as error:
            raise CorruptRunError(f"'{self.path(relative)}' cannot be read: {error.strerror}") from error

    def find(self, relative: str) -> bytes | None:
        """Content of a file, None when it is missing or no file."""
        try:
            return self.get(relative)
        except CorruptRunError:
            return None

    def put(self, relative: str, data: bytes) -> None:
        """Write a file so that a reader sees the old content or the new, never a part.

        Raises:
            OutputError: the file system refuses (no permission, read-only, disk full).
        """
        with self.put_stream(relative) as file:
            file.write(data)

    @contextmanager
    def put_stream(self, relative: str) -> Iterator[BinaryIO]:
        """Write a file piece by piece; it is there when the block ends, and not when it fails.

        Raises:
            OutputError: the file system refuses.
        """
        target = self.path(relative)
        try:
            if self.local:
                with self._local_stream(Path(target)) as file:
                    yield file
            else:
                # One put is atomic on object stores; a rename there is a copy.
                with tempfile.NamedTemporaryFile() as file:
                    yield cast("BinaryIO", file)
                    file.flush()
                    self.fs.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
                    self.fs.put_file(file.name, target)
        except OSError as error:
            if error.errno is None:  # not of a file system: Pillow raises these of pictures
                raise
            raise OutputError(f"cannot write '{target}': {error.strerror or error}") from error

    @contextmanager
    def _local_stream(self, target: Path) -> Iterator[BinaryIO]:
        temporary = Path(self.path(HALF_WRITTEN)) / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _move(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)

    def delete(self, relative: str) -> None:
        """Delete a file if it is there, and the folders it leaves empty."""
        target = PurePosixPath(self.path(relative))
        try:
            self.fs.rm_file(str(target))
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"cannot delete '{target}': {error.strerror or error}") from error
        if self.local:
            _remove_empty(Path(target).parent, Path(self.root))

    def names(self, relative: str = "") -> list[str]:
        """All files below a folder of this one, relative to this one, sorted; those of `MARK` too.

        Links to folders are not followed: they may lead anywhere, round in circles too.
        """
        root = PurePosixPath(self.root)
        top = self.path(relative) if relative else self.root
        if self.local:
            paths = (Path(folder) / name for folder, _, names in os.walk(top) for name in names)
        else:
            paths = map(PurePosixPath, self.fs.find(top))
        return sorted(str(file.relative_to(root)) for file in paths)

    def glob(self, pattern: str) -> list[str]:
        """Files that match a pattern, relative to this folder, sorted."""
        root = PurePosixPath(self.root)
        return sorted(str(PurePosixPath(f).relative_to(root)) for f in self.fs.glob(self.path(pattern)))

    def clear_half_written(self) -> None:
        """Delete what writers that were killed have left; those that still write keep theirs."""
        folder = Path(self.path(HALF_WRITTEN))
        for file in folder.iterdir() if self.local and folder.is_dir() else ():
            with suppress(FileNotFoundError):  # its writer has just moved it
                if _left_over(file):
                    file.unlink()


def _left_over(file: Path) -> bool:
    host, _, number = file.name.rpartition("-")[0].rpartition("-")
    if host == socket.gethostname() and number.isdigit() and not psutil.pid_exists(int(number)):
        return True
    return time() - file.stat().st_mtime > _FORGOTTEN


def _move(temporary: Path, target: Path) -> None:
    try:
        temporary.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # A folder of the run may be a link to another disk.
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        shutil.copyfile(temporary, beside)
        beside.replace(target)
        temporary.unlink()


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and root in folder.parents:
        try:
            folder.rmdir()
        except OSError:  # not empty
            return
        folder = folder.parent


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; not every file system lets a folder be synced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
