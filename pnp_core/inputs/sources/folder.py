"""A folder tree of pictures, local or on any fsspec file system; or a single picture."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pnp_core.data import Sample
from pnp_core.errors import SourceError, UnreadableImage
from pnp_core.inputs.images import decode_image
from pnp_core.inputs.sources._fetching import FETCH_SECONDS
from pnp_core.inputs.sources._picking import Picker
from pnp_core.inputs.sources._remote import Listed, RemoteImages
from pnp_core.inputs.sources._sampling import some_of
from pnp_core.inputs.sources.base import FileRef, NotReadError, digest_of, file_sample, marks, reason
from pnp_core.inputs.sources.keys import printable, safe_ending, safe_key, split_ending
from pnp_core.inputs.sources.links import LINKS, leaves, left_out

HIDDEN = "hidden folder"
_NO_LIMIT = 178_956_970
_LOCAL = LocalFileSystem()


@dataclass(frozen=True)
class FolderSource:
    """Picture files of a folder; a `Source`.

    Attributes:
        root: the folder.
        names: of the pictures, relative to it, in the order they are processed.
        listing: digest of what the file system told when it listed them; None when it must be asked again.
        within: the folder that links must not leave; None where they may.
        sizes: in bytes by name, of pictures on another machine that tells them.
    """

    identity: str
    root: FileRef
    names: tuple[str, ...]
    ignored: Counter[str] = field(default_factory=Counter)
    listing: str | None = None
    within: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict, compare=False)

    def file(self, name: str) -> FileRef:
        """One of the files."""
        return replace(self.root, path=f"{self.root.path.rstrip('/')}/{name}", within=self.within)

    @property
    def listed(self) -> int:
        """Number of pictures."""
        return len(self.names)

    def digest(self) -> str:
        """From the names, each file's size and time of change, and where links lead."""
        if self.listing is not None:
            return self.listing
        stamps = (f"{self.root.path}/{name}\0{self.file(name).stamp()}" for name in self.names)
        return digest_of(chain(stamps, self._targets()))

    def _targets(self) -> Iterator[str]:
        """Where links among the pictures and their folders lead."""
        folders = {name.rpartition("/")[0] for name in self.names} if self.root.local else ()
        for folder in sorted(folders):
            path = self.file(folder).path.rstrip("/")
            if (real := os.path.realpath(path)) != path:
                yield f"{folder}/\0{real}"
        for name in self.names if self.root.local else ():
            path = self.file(name).path
            if os.path.islink(path):  # noqa: PTH114 - surrogates
                yield f"{name}\0{os.path.realpath(path)}"

    def samples(self) -> Iterator[Sample]:
        """The pictures in order.

        Raises:
            NoAnswerError: the machine that they are on has stopped to answer.
        """
        if self.root.at_hand:
            return (file_sample(self.file(name), name, key) for name, key in self._keys())
        proof = self._listed(self.names[-1], "")
        listed = (self._listed(name, key) for name, key in self._keys())
        return RemoteImages(self.identity, proof).samples(listed)

    def subset(self, number: int, seed: int) -> Iterator[Sample]:
        """Some of the pictures, see `Source`; no others are read."""
        # In the folder's order: a picture's key may depend on its neighbours.
        return replace(self, names=some_of(self.names, number, seed)).samples()

    def _listed(self, name: str, key: str) -> Listed:
        sample = Sample(key, b"", safe_ending(name), printable(name))
        return Listed(self.file(name), sample, self.sizes.get(name, 0))

    def _keys(self) -> Iterator[tuple[str, str]]:
        """The names, each with its key."""
        stems = [split_ending(name)[0] for name in self.names]
        for i, name in enumerate(self.names):
            # Sorted by stem, so pictures that differ in the ending only are neighbours.
            twin = stems[i] in (stems[i - 1] if i else None, *stems[i + 1 : i + 2])
            yield name, safe_key(name if twin else stems[i], always_digest=twin)


def _local_names(folder: str, leave_out: str | None, picker: Picker, follow_links: bool) -> Iterator[str]:
    """All pictures below a local folder, linked folders once, hidden folders and those of file servers passed over.

    A folder inside that may not be read is named like a file, to be quarantined.
    """
    locked: list[str] = []
    within = None if follow_links else folder

    def unreadable(error: OSError) -> None:
        if error.filename == folder:
            raise SourceError(f"cannot read folder '{printable(folder)}': {error.strerror}") from error
        locked.append(error.filename)

    def stays(path: str) -> bool:
        if follow_links or not leaves(folder, path):
            return True
        picker.ignored[LINKS] += os.path.realpath(path) != leave_out
        return False

    def enters(path: str) -> bool:
        return picker.enters(os.path.relpath(path, folder)) and stays(path)

    def takes(path: str) -> bool:
        return picker.takes(os.path.relpath(path, folder), FileRef(_LOCAL, path, within)) and stays(path)

    seen = set()
    for directory, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        real = os.path.realpath(directory)
        if real in seen or real == leave_out:
            folders.clear()
            continue
        seen.add(real)
        picker.ignored[HIDDEN] += sum(name.startswith(".") for name in folders)
        shown = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in shown if enters(os.path.join(directory, name))]  # noqa: PTH118 - surrogates
        paths = (os.path.join(directory, name) for name in names)  # noqa: PTH118 - surrogates
        yield from (os.path.relpath(path, folder) for path in paths if takes(path))
    yield from (os.path.relpath(path, folder) for path in locked if takes(path))


def _remote_files(root: FileRef, leave_out: FileRef | None, picker: Picker) -> Iterator[tuple[str, dict[str, Any]]]:
    """All pictures below a folder of another file system, and what it tells of each.

    Raises:
        SourceError: it cannot be listed.
    """
    try:
        root.fs.invalidate_cache()
        listed = root.fs.find(root.path, detail=True)
    except Exception as error:  # packages raise types of their own
        raise SourceError(f"cannot list '{root.path}': {reason(error)}") from error
    folders: dict[str, bool] = {}
    excluded = leave_out.path.rstrip("/") + "/" if leave_out and type(leave_out.fs) is type(root.fs) else None
    for path, info in listed.items():
        name = path.removeprefix(root.path.rstrip("/")).lstrip("/")
        inside = (excluded is None or not path.startswith(excluded)) and _all_entered(name, folders, picker)
        if inside and picker.takes(name, FileRef(root.fs, path, seconds=root.seconds), marks(info)):
            yield name, info


def _all_entered(name: str, folders: dict[str, bool], picker: Picker) -> bool:
    """Whether the folders on a path may hold pictures of the source.

    Args:
        folders: what is known of folders already; is added to.
    """
    parts = name.split("/")[:-1]
    for end in range(1, len(parts) + 1):
        folder = "/".join(parts[:end])
        if folder not in folders:
            hidden = parts[end - 1].startswith(".")
            picker.ignored[HIDDEN] += hidden
            folders[folder] = not hidden and picker.enters(folder)
        if not folders[folder]:
            return False
    return True


def _order(name: str) -> tuple[str, str]:
    return split_ending(name)[0], name


def _place(url: str | None) -> FileRef | None:
    try:
        return None if url is None else FileRef.of(url)
    except SourceError:  # of another file system, hence not inside; whoever writes there will complain
        return None


def open_folder(
    folder: FileRef,
    leave_out: str | None,
    follow_links: bool = False,
    exclude: tuple[str, ...] = (),
) -> FolderSource:
    """List the pictures of a folder.

    Args:
        leave_out: path or URL of a folder not to read, such as a run folder inside the source.
        follow_links: take what links lead to outside of the folder too.
        exclude: patterns of paths and names to leave out.

    Raises:
        SourceError: no pictures there, or it cannot be read.
    """
    ignored: Counter[str] = Counter()
    picker = Picker(exclude, ignored)
    excluded = _place(leave_out)
    listing, within, sizes = None, None, {}
    # A broken link is kept, to be quarantined: nothing named like a picture is lost in silence.
    if folder.local:
        folder = FileRef(folder.fs, os.path.realpath(folder.path))
        skip = os.path.realpath(excluded.path) if excluded and excluded.local else None
        names = sorted(_local_names(folder.path, skip, picker, follow_links), key=_order)
        within = None if follow_links else folder.path
    else:
        told = dict(_remote_files(folder, excluded, picker))
        names = sorted(told, key=_order)
        listing = digest_of(f"{folder.path}/{name}\0{marks(told[name])}" for name in names)
        sizes = {name: info["size"] for name, info in told.items() if info.get("size")}
    ignored += Counter()  # drops zeros
    if not names:
        raise SourceError(f"no pictures in '{printable(folder.path)}'{_hint(folder.path, ignored)}")
    return FolderSource(printable(folder.path), folder, tuple(names), ignored, listing, within, sizes)


@dataclass(frozen=True)
class FileSeen:
    """A picture file as the file system shows it.

    Attributes:
        stamp: changes when the file does.
        changed: when it was written to, seconds since the epoch; None when the file system does not say.
        size: bytes; None when the file system does not say.
    """

    name: str
    stamp: str
    changed: float | None
    size: int | None


@dataclass(frozen=True)
class GrowingFolder:
    """A folder that is looked at again and again; it may be empty."""

    root: FileRef
    follow_links: bool = False
    exclude: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        url: str,
        follow_links: bool = False,
        exclude: tuple[str, ...] = (),
        fetch_seconds: float = FETCH_SECONDS,
    ) -> GrowingFolder:
        """A folder by its path or URL.

        Args:
            follow_links: take what links lead to outside of the folder too.
            exclude: patterns of paths and names to leave out.
            fetch_seconds: limit for each question to another machine.

        Raises:
            SourceError: there is none.
        """
        root = FileRef.of(url, fetch_seconds)
        kind = root.kind()
        # In a bucket a folder without files is not there at all.
        if kind not in ("directory", None) or (kind is None and root.local):
            raise SourceError(f"'{url}' is no folder; a corpus that grows is a folder or a bucket")
        return cls(FileRef(root.fs, os.path.realpath(root.path)) if root.local else root, follow_links, exclude)

    @property
    def identity(self) -> str:
        """Where it is, for people and for telling corpora apart."""
        return printable(self.root.path if self.root.local else self.root.fs.unstrip_protocol(self.root.path))

    def file(self, name: str) -> FileRef:
        """One of its files."""
        within = self.root.path if self.root.local and not self.follow_links else None
        return FileRef(self.root.fs, f"{self.root.path.rstrip('/')}/{name}", within, self.root.seconds)

    def stable(self, file: FileSeen, read: int) -> bool:
        """Whether a file of which so many bytes were read is still as it was listed."""
        if self.root.local:
            return self._local(file.name) == file
        # What a store tells of one object differs from its listing, so only the size is compared: objects are
        # written in one step.
        return file.size in (None, read)

    def is_gone(self, file: FileSeen, error: NotReadError) -> bool:
        """Whether a file that was listed is there no more under this name; a broken link still is."""
        if self.root.local:
            return not os.path.lexists(self.file(file.name).path)
        return isinstance(error.__cause__, FileNotFoundError)

    def _local(self, name: str) -> FileSeen:
        path = self.file(name).path
        try:
            status = os.stat(path)  # noqa: PTH116 - surrogates
        except OSError as error:
            return FileSeen(name, f"unreadable: {type(error).__name__}", None, None)
        stamp = f"{status.st_size}/{status.st_mtime_ns}/{status.st_ctime_ns}/{os.access(path, os.R_OK)}"
        return FileSeen(name, stamp, status.st_mtime, status.st_size)

    def files(
        self, leave_out: str | None, ignored: Counter[str], known: Mapping[str, str] | None = None
    ) -> list[FileSeen]:
        """All its pictures, in order.

        Args:
            leave_out: path or URL of a folder inside that holds no pictures of the corpus.
            ignored: gets the number of files passed over, by ending, and of links.
            known: stamps of the pictures that were taken before, by name.
        """
        excluded, picker = _place(leave_out), Picker(self.exclude, ignored, known or {})
        if self.root.local:
            skip = os.path.realpath(excluded.path) if excluded and excluded.local else None
            names = _local_names(self.root.path, skip, picker, self.follow_links)
            seen = [self._local(name) for name in names]
        else:
            listed = _remote_files(self.root, excluded, picker)
            seen = [FileSeen(n, marks(i), _changed(i), i.get("size")) for n, i in listed]
        return sorted(seen, key=lambda file: _order(file.name))


def _changed(info: dict[str, Any]) -> float | None:
    """When a file was written to, by whatever name its file system tells it."""
    for name in ("LastModified", "last_modified", "updated", "mtime", "modified", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            try:
                return datetime.fromisoformat(value).timestamp()
            except ValueError:
                continue
    return None


def _hint(path: str, ignored: Counter[str]) -> str:
    """What the user may have meant by a folder without pictures."""
    kinds = {".tar": "webdataset tars", ".parquet": "Parquet files"}
    packed = next((ending for ending in kinds if ignored[ending]), None)
    if packed:
        return f"; for {kinds[packed]} give '{printable(path)}/*{packed}'"
    if ignored[LINKS]:
        return f", but {ignored[LINKS]} links that leave the folder: --follow-links reads what they lead to"
    if left := left_out(ignored):
        return f", but {'; '.join(left)}"
    return "" if ignored else ": it is empty"


def open_image(file: FileRef) -> FolderSource:
    """A single picture.

    Raises:
        SourceError: it is not one.
    """
    try:
        decode_image(file.read(), _NO_LIMIT)
    except NotReadError as error:
        raise SourceError(f"'{file.path}' {error}") from error
    except UnreadableImage as error:
        raise SourceError(f"'{file.path}' cannot be read as a picture: {error}") from error
    name = file.path.rsplit("/", 1)[-1]
    return FolderSource(printable(file.path), replace(file.folder, path=file.folder.path or "/"), (name,))
