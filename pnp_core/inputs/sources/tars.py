"""Anybody's webdataset tars: read member by member, damage skipped and reported."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any

from pnp_core.data import Sample
from pnp_core.errors import SourceError
from pnp_core.inputs.images import IMAGE_EXTENSIONS
from pnp_core.inputs.sources._members import Member, TarWalk, is_header
from pnp_core.inputs.sources._picking import claims_image, excludes, server_folder
from pnp_core.inputs.sources._sampling import reservoir
from pnp_core.inputs.sources.base import FileRef, NotReadError, common_folder, digest_of, reason
from pnp_core.inputs.sources.keys import UniqueNames, printable, safe_ending, safe_key, split_ending
from pnp_core.storage.first_bytes import pointer, refusal

_LABEL_MAP = ".seg.png"
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
_SEARCHED = 64 << 20
NO_IMAGE = "the tar's record holds no picture"


def _record_key(member: Member) -> str:
    """A member's webdataset key: its path up to the first dot of the file name."""
    folder, slash, base = member.name.rpartition("/")
    return folder + slash + (base.split(".")[0] or base)


def _is_image(member: Member) -> bool:
    ending = split_ending(member.name)[1]
    if member.name.endswith(_LABEL_MAP):
        return False
    if not ending or ending in IMAGE_EXTENSIONS:
        return True
    return claims_image(member.name) and _begins_like_one(member)  # a.jpg.1, but not a.jpg.xmp


def _begins_like_one(member: Member) -> bool:
    try:
        return refusal(member.read()) is None
    except NotReadError:
        return True  # a claim, and its reason is told


def _is_clutter(member: Member) -> bool:
    """Hidden files that do not claim to be pictures, such as .DS_Store."""
    base = member.name.rsplit("/", 1)[-1]
    return base.startswith(".") and split_ending(base)[1] not in IMAGE_EXTENSIONS


@dataclass(frozen=True)
class Found:
    """A picture of a tar, or why there is none.

    Attributes:
        name: what its key is made of.
        member: path in the tar, or where it is damaged.
    """

    name: str
    member: str
    content: bytes = b""
    fault: str | None = None


def _read(name: str, member: Member) -> Found:
    try:
        return Found(name, member.name, member.read())
    except NotReadError as error:
        return Found(name, member.name, fault=str(error))


def _record(key: str, members: Iterable[Member]) -> Iterator[Found]:
    """The pictures of a record: a single one is named by the key, several in full."""
    if made := server_folder(key):
        yield from _refused(made, members)
        return
    refused = None

    def images() -> Iterator[Member]:
        nonlocal refused
        for member in members:
            refused = refused or (member if member.leaves_folder else None)
            if _is_image(member):
                yield member

    # No more than two are looked at before the first is named: a record may be all of the tar.
    remaining = images()
    first, second = next(remaining, None), next(remaining, None)
    if first is None:
        fault = "its name in the tar leaves its folder" if refused else NO_IMAGE
        yield Found(key, key, fault=fault)
    elif second is None:
        yield _read(key, first)
    else:
        for member in chain((first, second), remaining):
            yield _read(split_ending(member.name)[0], member)


def read_images(file: Any, exclude: tuple[str, ...] = ()) -> Iterator[Found]:
    """Every picture of a tar in order, one in memory at a time; damage after the record it was found in.

    Labels may stand apart from their pictures, before or behind them: records without a picture come last, and only
    those that no picture of the tar belongs to.

    Args:
        exclude: patterns of names to leave out.
    """
    walk = TarWalk(file)
    reported = 0
    imaged: set[str] = set()
    without: dict[str, Found] = {}
    kept = (m for m in walk if not _is_clutter(m) and not excludes(exclude, m.name))
    for key, members in groupby(kept, key=_record_key):
        for found in _record(key, members):
            if found.fault == NO_IMAGE:
                without[key] = found
            else:
                imaged.add(key)
                yield found
        lost, reported = walk.damage[reported:], len(walk.damage)
        yield from (_lost(at, fault) for at, fault in lost)
    yield from (_lost(at, fault) for at, fault in walk.damage[reported:])
    yield from (without[key] for key in _lost_records(without, imaged))


def _lost_records(without: Iterable[str], imaged: set[str]) -> Iterator[str]:
    """Records that no picture belongs to: none has their key, nor, where no picture is in their folder, their name."""
    folders, names = {key.rpartition("/")[0] for key in imaged}, {key.rpartition("/")[2] for key in imaged}
    for key in without:
        folder, _, name = key.rpartition("/")
        beside = folder not in folders and name in names  # labels/0.json of images/0.jpg
        if key not in imaged and not beside:
            yield key


def _refused(folder: str, members: Iterable[Member]) -> Iterator[Found]:
    """Pictures in a folder that a file server made, which are no pictures of the source."""
    fault = (
        f"lies in {printable(folder)}, a folder that file servers make; --exclude '{printable(folder)}' leaves it out"
    )
    yield from (Found(member.name, member.name, fault=fault) for member in members if _is_image(member))


def _lost(at: int, fault: str) -> Found:
    return Found(f"damage-{at}", f"damage-{at}", fault=fault)


@dataclass(frozen=True)
class TarSource:
    """Pictures in webdataset tars; a `Source`.

    A record with one picture is named by its key; of several pictures in a record each is named in
    full; a record that no picture of the tar belongs to comes with a fault. ``.seg.png`` files are label maps, not
    pictures.
    """

    pattern: str
    files: tuple[FileRef, ...]
    ignored: Counter[str] = field(default_factory=Counter)
    exclude: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """What was asked for."""
        return printable(self.pattern)

    @property
    def listed(self) -> None:
        """Known only when all are read."""

    def digest(self) -> str:
        """From the tars' names, sizes and times of change, and what is left out of them."""
        return digest_of(chain((f"{file.path}\0{file.stamp()}" for file in self.files), self.exclude))

    def samples(self) -> Iterator[Sample]:
        """The pictures of all tars in order; damage comes as samples with a fault."""
        unique = UniqueNames()
        root = common_folder(list(self.files))
        for file in self.files:
            tar = file.path.removeprefix(root)
            # Keys are unique per tar only; several tars may use the same ones.
            folder = "" if len(self.files) == 1 else split_ending(tar)[0] + "/"
            for found in self._images(file):
                key = safe_key(unique(folder + found.name))
                source = printable(f"{tar}!{found.member}")
                ending, name = safe_ending(found.member), printable(found.name)
                yield Sample(key, found.content, ending, source, fault=found.fault, name=name)

    def subset(self, number: int, seed: int) -> Iterator[Sample]:
        """Some of the pictures, see `Source`; the tars are read from end to end."""
        return reservoir(self.samples(), number, seed)

    def _images(self, file: FileRef) -> Iterator[Found]:
        try:
            with file.fs.open(file.path, "rb") as opened:
                yield from read_images(opened, self.exclude)
        except Exception as error:  # the file system's, in the middle of the tar: packages raise types of their own
            raise SourceError(f"'{printable(file.path)}' cannot be read: {reason(error)}") from error


def _check_tar(file: FileRef) -> None:
    """Raise SourceError unless a file is a tar: a header near its start, or only zeros."""
    name = printable(file.path)
    with file.fs.open(file.path, "rb") as opened:
        first = opened.read(tarfile.BLOCKSIZE)
        if first.startswith(_COMPRESSED):
            raise SourceError(f"'{name}' is a compressed tar; decompress it first")
        block, read, zeros = first, len(first), True
        while len(block) == tarfile.BLOCKSIZE and read <= _SEARCHED:
            if is_header(block):
                return
            zeros = zeros and not block.strip(b"\0")
            block = opened.read(tarfile.BLOCKSIZE)
            read += len(block)
        if not first or block.strip(b"\0") or not zeros:
            what = pointer(first)
            raise SourceError(f"'{name}' is not a tar" + (f": {what}" if what else ""))


def open_tars(pattern: str, files: list[FileRef], exclude: tuple[str, ...] = ()) -> TarSource:
    """Check that the files are tars; a damaged one among others is read as far as it goes.

    Args:
        exclude: patterns of names to leave out.

    Raises:
        SourceError: none is, or one cannot be read.
    """
    wrong = []
    for file in files:
        try:
            _check_tar(file)
        except SourceError as error:
            wrong.append(error)
        except Exception as error:  # packages raise types of their own
            raise SourceError(f"'{printable(file.path)}' cannot be read: {reason(error)}") from error
    if len(wrong) == len(files):
        raise wrong[0]
    return TarSource(pattern, tuple(files), exclude=exclude)
