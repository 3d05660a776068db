"""A text file of paths or URLs, one per line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pnp_core.data import Sample
from pnp_core.errors import SourceError
from pnp_core.inputs.sources.base import FileRef, NotReadError, digest_of, is_near, is_url, passes
from pnp_core.inputs.sources.cells import picture_text, strange_text
from pnp_core.inputs.sources.fetching import Fetches
from pnp_core.inputs.sources.keys import UniqueNames, printable, safe_ending, safe_key, split_ending
from pnp_core.inputs.sources.links import EXCLUDED
from pnp_core.inputs.sources.picking import excludes
from pnp_core.storage.first_bytes import pointer
from pnp_core.text.files import text_of


def resolve_line(line: str, folder: FileRef, seconds: float | None = None) -> FileRef:
    """A path or URL of a list; a path is on the list's file system, relative to its folder.

    Args:
        seconds: limit for each question to another machine.

    Raises:
        SourceError: the file system is unknown, needs a package that is missing, or cannot be opened.
    """
    if is_url(line):
        return FileRef.of(line, seconds)
    path = line if line.startswith("/") else f"{folder.path.rstrip('/')}/{line}"
    return FileRef(folder.fs, path, seconds=seconds).on_this_thread()


@dataclass(frozen=True)
class Pointed:
    """A picture that a list or a table names.

    Attributes:
        line: its path or URL.
        folder: what a path is relative to.
        sample: all of it but its bytes.
    """

    line: str
    folder: FileRef
    sample: Sample

    @property
    def url(self) -> str | None:
        """Where another machine is asked for it; None when it is on this one."""
        if is_url(self.line):
            return None if is_near(self.line) else self.line
        if self.folder.at_hand:
            return None
        return self.folder.fs.unstrip_protocol(f"{self.folder.path}/{self.line}")

    def file(self, seconds: float) -> FileRef:
        """The file itself, see `resolve_line`."""
        return resolve_line(self.line, self.folder, seconds)

    def read(self, seconds: float) -> tuple[Sample, bool]:
        """The picture or its fault, and whether it may be there another time."""
        try:
            return replace(self.sample, image=self.file(seconds).read()), False
        except NotReadError as error:
            if self.url and isinstance(error.__cause__, TimeoutError):  # no answer, whoever notices first
                raise TimeoutError from error
            return replace(self.sample, fault=str(error)), error.may_pass
        except SourceError as error:
            return replace(self.sample, fault=str(error)), passes(error.__cause__)

    def stamp(self, seconds: float) -> str:
        """Changes when what the line points to does."""
        try:
            return self.file(seconds).stamp()
        except SourceError as error:
            return str(error)


def fetched(items: Iterable[Sample | Pointed], fetches: Fetches) -> Iterator[Sample]:
    """Samples, with their bytes or their fault; those that another machine did not give come last, asked once more."""

    def url_of(item: Sample | Pointed) -> str | None:
        return item.url if isinstance(item, Pointed) else None

    def read(item: Sample | Pointed) -> tuple[Sample, bool]:
        return item.read(fetches.seconds) if isinstance(item, Pointed) else (item, False)

    late = []
    for item, answer in fetches.ask(items, url_of, read):
        if isinstance(item, Pointed) and (answer is None or answer[1]):
            late.append(item)
        elif answer:
            yield answer[0]
    fetches.forgive()
    for item, answer in fetches.ask(late, url_of, read):
        yield answer[0] if answer else replace(item.sample, fault=fetches.silence(item.url or ""))


def stamps(items: Iterable[Pointed], fetches: Fetches) -> Iterator[str]:
    """A line for each picture that changes when it does."""
    for item, stamp in fetches.ask(items, lambda item: item.url, lambda item: item.stamp(fetches.seconds)):
        yield f"{item.line}\0{stamp or 'unreadable: no answer'}"


FIRST_LINES = 32
"""Lines that are looked at before a text file is taken for a list."""


class Line(NamedTuple):
    """A line of a list, by its number in the file, from 1."""

    number: int
    text: str


@dataclass(frozen=True)
class ListSource:
    """Pictures named in a text file; a `Source`."""

    file: FileRef
    lines: tuple[Line, ...]
    ignored: Counter[str] = field(default_factory=Counter)
    fetches: Fetches = field(default_factory=Fetches, compare=False)

    @property
    def identity(self) -> str:
        """The list."""
        return printable(self.file.path)

    def digest(self) -> str:
        """From the lines and each file's size and time of change."""
        return digest_of(stamps((item for _, item in self._pointed()), self.fetches))

    def samples(self) -> Iterator[Sample]:
        """The pictures in order, the late ones last; the same line twice gives two of them."""
        return fetched((self._written(number, item) for number, item in self._pointed()), self.fetches)

    def _written(self, number: int, item: Pointed) -> Sample | Pointed:
        """A line that is a picture itself, as a data URI or base64, is named by its number."""
        named = replace(item.sample, key=safe_key(f"line/{number}"), extension="bin", source=f"line {number}")
        try:
            data = picture_text(item.line)
            return item if data is None else replace(named, image=data)
        except ValueError as error:
            return replace(named, fault=str(error))

    def _pointed(self) -> Iterator[tuple[int, Pointed]]:
        unique = UniqueNames()
        for number, line in self.lines:
            # a.jpg and a.png are different pictures of the same stem.
            key = safe_key(unique(split_ending(line.lstrip("/"))[0]))
            yield number, Pointed(line, self.file.folder, Sample(key, b"", safe_ending(line), printable(line)))


def open_list(file: FileRef, fetches: Fetches, exclude: tuple[str, ...] = ()) -> ListSource:
    """Read a list; the pictures are looked for later.

    Args:
        exclude: patterns of lines to leave out.

    Raises:
        SourceError: missing, no text, without lines, or with lines that name no files.
    """
    try:
        data = file.read()
        if what := pointer(data):
            raise SourceError(f"list '{file.path}' is a {what}")
        text = text_of(data)
    except (NotReadError, ValueError) as error:
        raise SourceError(f"list '{file.path}' {error}") from error
    numbered = enumerate(text.replace("\r\n", "\n").split("\n"), start=1)
    lines = tuple(Line(number, line) for number, line in numbered if line.strip())
    if not lines:
        raise SourceError(f"list '{file.path}' is empty; it needs one path or URL per line")
    kept = tuple(line for line in lines if not excludes(exclude, line.text))
    if not kept:
        raise SourceError(f"list '{file.path}': all of its {len(lines)} lines are {EXCLUDED}")
    if what := strange_text([line.text for line in kept[:FIRST_LINES]], file.folder):
        raise SourceError(f"list '{file.path}' holds {what}; it needs one path or URL per line, and nothing else")
    passed = Counter({EXCLUDED: len(lines) - len(kept)} if len(kept) < len(lines) else {})
    return ListSource(file, kept, passed, fetches=fetches)
