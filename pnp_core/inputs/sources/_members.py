"""Walk a tar of unknown origin: damage is stepped over and noted, nothing is unpacked to disk."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pnp_core.inputs.sources.base import MAX_BYTES, NotReadError, check_size, reason

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A member of a tar with an intact header; its content is read when asked for.

    Attributes:
        available: bytes of the archive that hold its content, which is cut short when there are fewer than its size.
    """

    tar: tarfile.TarFile
    info: tarfile.TarInfo
    available: int

    @property
    def name(self) -> str:
        """Path in the tar, without leading `./`."""
        return re.sub(r"^(\./+)+", "", self.info.name)

    @property
    def leaves_folder(self) -> bool:
        """Whether unpacking it would write outside the folder it is unpacked to."""
        parts = re.split(r"[/\\]", self.info.name)
        return (parts[0] == "" and len(parts) > 1) or ".." in parts

    def read(self) -> bytes:
        """The content.

        Raises:
            NotReadError: a link, a name that leaves its folder, too large, or cut short.
        """
        if self.leaves_folder:
            raise NotReadError("refused: its name in the tar leaves its folder")
        if not self.info.isreg():
            raise NotReadError("is a link or device in the tar, not a file")
        check_size(self.info.size)
        if self.available < 0:
            raise NotReadError("the tar is cut short in this file")
        try:
            opened = self.tar.extractfile(self.info)
            return opened.read() if opened else b""
        except Exception as error:  # tarfile raises nearly any type on hostile bytes
            raise NotReadError(f"cannot be read from the tar: {reason(error)}") from error


class _Bounded:
    """A file that gives no more than a picture at once: the sizes in a tar are only what the tar says."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_BYTES:
            raise tarfile.ReadError(f"{size} bytes at once")
        return self._file.read(size)


@dataclass
class TarWalk:
    """Members of a tar in order, in memory that does not grow.

    Attributes:
        file: the tar, seekable.
        damage: after the walk has passed it, what was wrong and at which byte.
    """

    file: Any
    damage: list[tuple[int, str]] = field(default_factory=list)

    def __iter__(self) -> Iterator[Member]:
        """Go from intact header to intact header; what lies between members must be zeros."""
        size = self.file.seek(0, 2)
        at = end = 0
        cut = False
        while (at := self._next_header(at)) is not None:
            member = self._member(at)
            if member is None:  # an extension header that leads nowhere
                at += _BLOCK
                continue
            self._note_gap(end, at)
            cut = member.available < 0 or member.tar.offset > size + _BLOCK
            if not member.info.isdir():
                yield member
            # A wrong size must not hide what follows: the next header is then searched for in the content.
            at = member.info.offset_data if cut else max(member.tar.offset, at + _BLOCK)
            end = size if cut else at
        if not self._note_gap(end, size) and not cut and size - _BLOCK < end:
            self.damage.append((min(end, size), f"the tar may be cut short at byte {size}: it has no end mark"))

    def _next_header(self, start: int) -> int | None:
        """Position of the first block from `start` on whose checksum says that it is a header."""
        self.file.seek(start)
        while len(block := self.file.read(_BLOCK)) == _BLOCK:
            if is_header(block):
                return start
            start += _BLOCK
        return None

    def _member(self, start: int) -> Member | None:
        """The member whose first header is at `start`; None when it makes no sense."""
        self.file.seek(start)
        bounded: Any = _Bounded(self.file)
        try:
            tar = tarfile.TarFile(fileobj=bounded, encoding="utf-8")
            info = tar.next()
        except Exception:  # tarfile raises nearly any type on hostile bytes
            return None
        if info is None or info.size < 0:
            return None
        return Member(tar, info, self._available(tar, info))

    def _available(self, tar: Any, info: tarfile.TarInfo) -> int:
        """Bytes that are there beyond the member's content; negative when it is cut short."""
        stored = min(info.offset_data + info.size, tar.offset)  # a sparse file is stored shorter than it is
        return self.file.seek(0, 2) - stored

    def _note_gap(self, start: int, end: int) -> bool:
        """Note what lies between two members and is no padding; whether there was any."""
        self.file.seek(start)
        for at in range(start, end, _CHUNK):
            if self.file.read(min(_CHUNK, end - at)).strip(b"\0"):
                fault = f"the tar is damaged from byte {start} to {end}: what was there is lost"
                self.damage.append((start, fault))
                return True
        return False


def is_header(block: bytes) -> bool:
    """Whether 512 bytes are the header of a tar's member."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True
