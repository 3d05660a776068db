"""A text file of paths or URLs, one per line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pnp_core.errors import SourceError
from pnp_core.records import Sample
from pnp_core.sources.base import FileRef, NotReadError, digest_of, file_sample, is_url
from pnp_core.sources.keys import UniqueNames, printable, safe_ending, safe_key, split_ending
from pnp_core.texts import text_of


def resolve_line(line: str, folder: FileRef) -> FileRef:
    """A path or URL of a list; a path is on the list's file system, relative to its folder.

    Raises:
        SourceError: the file system is unknown, needs a package that is missing, or cannot be opened.
    """
    if is_url(line):
        return FileRef.of(line)
    return FileRef(folder.fs, line if line.startswith("/") else f"{folder.path.rstrip('/')}/{line}")


def pointed_stamp(line: str, folder: FileRef) -> str:
    """Changes when what a line points to does."""
    try:
        return resolve_line(line, folder).stamp()
    except SourceError as error:
        return str(error)


def pointed_sample(line: str, folder: FileRef, key: str) -> Sample:
    """What a line points to as a sample, with a fault when it cannot be read."""
    try:
        return file_sample(resolve_line(line, folder), line, key)
    except SourceError as error:
        return Sample(key, b"", safe_ending(line), printable(line), fault=str(error))


@dataclass(frozen=True)
class ListSource:
    """Pictures named in a text file; a `Source`."""

    file: FileRef
    lines: tuple[str, ...]
    ignored: Counter[str] = field(default_factory=Counter)

    @property
    def identity(self) -> str:
        """The list."""
        return printable(self.file.path)

    def digest(self) -> str:
        """From the lines and each file's size and time of change."""
        return digest_of(f"{line}\0{pointed_stamp(line, self.file.folder)}" for line in self.lines)

    def samples(self) -> Iterator[Sample]:
        """The pictures in order; the same line twice gives two of them."""
        unique = UniqueNames()
        for line in self.lines:
            # a.jpg and a.png are different pictures of the same stem.
            stem = split_ending(line.lstrip("/"))[0]
            yield pointed_sample(line, self.file.folder, safe_key(unique(stem)))


def open_list(file: FileRef) -> ListSource:
    """Read a list; the pictures are looked for later.

    Raises:
        SourceError: missing, no text, or without lines.
    """
    try:
        text = text_of(file.read())
    except (NotReadError, ValueError) as error:
        raise SourceError(f"list '{file.path}' {error}") from error
    lines = tuple(line for line in text.replace("\r\n", "\n").split("\n") if line.strip())
    if not lines:
        raise SourceError(f"list '{file.path}' is empty; it needs one path or URL per line")
    return ListSource(file, lines)
