"""The folder of a dataset: reads only, local or on any fsspec file system."""

from __future__ import annotations

from pathlib import PurePosixPath

from pnp_core.errors import DatasetError, SourceError
from pnp_core.inputs.cards import DatasetCard
from pnp_core.inputs.images import IMAGE_EXTENSIONS
from pnp_core.inputs.sources.base import FileRef, reason
from pnp_core.inputs.sources.keys import split_ending
from pnp_core.text.files import text_of


class DataFolder:
    """Reads below the folder of a dataset, a local path or any fsspec URL."""

    def __init__(self, url: str, card: DatasetCard) -> None:
        """Open the folder.

        Raises:
            DatasetError: it does not exist, or its file system is unknown.
        """
        self.url = url
        self._card = card
        try:
            opened = FileRef.of(url)
        except SourceError as error:
            raise DatasetError(str(error)) from error
        self.fs, self.root = opened.fs, opened.path
        if not self.fs.isdir(self.root):
            raise DatasetError(f"data folder '{url}' does not exist; {card.name} needs {card.root}{self.source()}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataFolder) and (self.url, self._card) == (other.url, other._card)

    def __hash__(self) -> int:
        return hash(self.url)

    def source(self) -> str:
        """Where the dataset can be had, as the end of a sentence."""
        return f"; get it from {self._card.homepage}" if self._card.homepage else ""

    def advice(self) -> str:
        """What to do about a missing file, as the end of a sentence."""
        return f"; --data must be {self._card.root}{self.source()}"

    def path(self, relative: str) -> str:
        """Full path of a file."""
        return f"{self.root.rstrip('/')}/{relative}"

    def file(self, relative: str) -> FileRef:
        """A file; reading and looking at it never raises but what `FileRef` says."""
        return FileRef(self.fs, self.path(relative))

    def exists(self, relative: str) -> bool:
        """Whether a file or folder is there."""
        return self.fs.exists(self.path(relative))

    def read_text(self, relative: str) -> str:
        """Content of a text file.

        Raises:
            DatasetError: missing, or no text.
        """
        try:
            return text_of(self.fs.cat_file(self.path(relative)))
        except ValueError as error:
            raise DatasetError(f"'{self.path(relative)}' {error}") from error
        except Exception as error:  # file systems raise types of their own
            raise DatasetError(f"'{self.path(relative)}' {_why(error)}{self.advice()}") from error

    def names(self, relative: str) -> list[str]:
        """Sorted names of the files in a folder; empty when there is none."""
        try:
            return sorted(PurePosixPath(entry).name for entry in self.fs.ls(self.path(relative), detail=False))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def matching(self, template: str) -> dict[str, str]:
        """Id -> path of the files that fit a template; an ending `*` stands for any picture's, in order of names."""
        folder, pattern = PurePosixPath(template).parent, PurePosixPath(template).name
        before, after = pattern.split("{id}")
        paths = {}
        for name in self.names(str(folder)):
            ending = split_ending(name)[1]
            tail = name[-len(ending) - 1 :] if after == ".*" and ending in IMAGE_EXTENSIONS else after
            if name.startswith(before) and name.endswith(tail) and len(name) > len(before) + len(tail):
                paths[name[len(before) : len(name) - len(tail)]] = str(folder / name)
        return paths


def _why(error: Exception) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {reason(error)}"
