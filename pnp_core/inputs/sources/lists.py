"""A text file of paths or URLs, one per line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pnp_core.data import Sample
from pnp_core.errors import SourceError
from pnp_core.inputs.sources._cells import image_text, strange_text
from pnp_core.inputs.sources._fetching import Fetches
from pnp_core.inputs.sources._picking import excludes
from pnp_core.inputs.sources._pointed import Fetched, Given, Pointed, fetched, stamps
from pnp_core.inputs.sources._sampling import some_of
from pnp_core.inputs.sources.base import FileRef, NotReadError, digest_of
from pnp_core.inputs.sources.keys import UniqueNames, printable, safe_ending, safe_key, split_ending
from pnp_core.inputs.sources.links import EXCLUDED
from pnp_core.storage.first_bytes import pointer
from pnp_core.text.files import text_of

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

    @property
    def listed(self) -> int:
        """Number of pictures."""
        return len(self.lines)

    def digest(self) -> str:
        """From the lines and each file's size and time of change."""
        return digest_of(stamps((item for _, item in self._pointed()), self.fetches))

    def samples(self) -> Iterator[Sample]:
        """The pictures in order, the late ones last; the same line twice gives two of them."""
        return fetched((self._written(number, item) for number, item in self._pointed()), self.fetches)

    def subset(self, number: int, seed: int) -> Iterator[Sample]:
        """The pictures of some lines, see `Source`; no others are read."""
        return replace(self, lines=some_of(self.lines, number, seed)).samples()

    def _written(self, number: int, item: Pointed) -> Fetched:
        """A line that is a picture itself, as a data URI or base64, is named by its number."""
        named = replace(item.sample, key=safe_key(f"line/{number}"), extension="bin", source=f"line {number}")
        try:
            data = image_text(item.line)
            return item if data is None else Given(replace(named, image=data))
        except ValueError as error:
            return Given(replace(named, fault=str(error)))

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
