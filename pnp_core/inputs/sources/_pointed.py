"""Pictures that lists and tables name, or hold themselves, and reading them from wherever they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from pnp_core.data import Sample
from pnp_core.errors import SourceError
from pnp_core.inputs.sources._fetching import Fetches
from pnp_core.inputs.sources.base import FileRef, NotReadError, is_near, is_url, passes


def _resolve_line(line: str, folder: FileRef, seconds: float | None = None) -> FileRef:
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


@runtime_checkable
class Fetched(Protocol):
    """A picture of a list or a table, wherever its bytes are."""

    @property
    def sample(self) -> Sample:
        """All that is known of it."""
        ...

    @property
    def url(self) -> str | None:
        """Where another machine is asked for it; None when it is on this one."""
        ...

    def read(self, seconds: float) -> tuple[Sample, bool]:
        """The picture or its fault, and whether it may be there another time."""
        ...


@dataclass(frozen=True)
class Given:
    """A picture whose bytes, or fault, stand in the list or table itself; a `Fetched`."""

    sample: Sample
    url: None = None

    def read(self, seconds: float) -> tuple[Sample, bool]:
        """The picture as it is."""
        return self.sample, False


@dataclass(frozen=True)
class Pointed:
    """A picture that a list or a table names; a `Fetched`.

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
        """The file itself, see `_resolve_line`."""
        return _resolve_line(self.line, self.folder, seconds)

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


def fetched(items: Iterable[Fetched], fetches: Fetches) -> Iterator[Sample]:
    """Samples, with their bytes or their fault; those that another machine did not give come last, asked once more."""

    def url_of(item: Fetched) -> str | None:
        return item.url

    def read(item: Fetched) -> tuple[Sample, bool]:
        return item.read(fetches.seconds)

    late = []
    for item, answer in fetches.ask(items, url_of, read):
        if answer is None or answer[1]:
            late.append(item)
        else:
            yield answer[0]
    fetches.forgive()
    for item, answer in fetches.ask(late, url_of, read):
        yield answer[0] if answer else replace(item.sample, fault=fetches.silence(item.url or ""))


def stamps(items: Iterable[Pointed], fetches: Fetches) -> Iterator[str]:
    """A line for each picture that changes when it does."""
    for item, stamp in fetches.ask(items, lambda item: item.url, lambda item: item.stamp(fetches.seconds)):
        yield f"{item.line}\0{stamp or 'unreadable: no answer'}"
