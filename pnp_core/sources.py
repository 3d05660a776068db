"""A user's own pictures: a folder tree, one picture, or webdataset tars."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import braceexpand
from PIL import Image, UnidentifiedImageError

from pnp_core.errors import SourceError
from pnp_core.images import IMAGE_EXTENSIONS
from pnp_core.records import Sample
from pnp_core.shards import foreign_pictures

_KEY_LENGTH = 100


@dataclass(frozen=True)
class Source:
    """Pictures to label, listed but not read.

    Attributes:
        identity: where they are, for people and for telling runs apart.
        root: folder that picture names are relative to.
        files: pictures, or tars, in the order they are processed.
        tars: whether `files` are webdataset tars.
        ignored: file ending -> number of files passed over because they are no pictures.
    """

    identity: str
    root: Path
    files: tuple[Path, ...]
    tars: bool
    ignored: Counter[str]

    def digest(self) -> str:
        """Changes when a file is added, removed, resized, touched or becomes readable."""
        digest = hashlib.sha256()
        for file in self.files:
            status = file.stat() if file.exists() else file.lstat()
            readable = os.access(file, os.R_OK)
            line = f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0{readable}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def samples(self) -> Iterator[Sample]:
        """Every picture with a unique, path-safe key; one file in memory at a time.

        A picture file that cannot be read comes with its `fault` instead of bytes.

        Raises:
            SourceError: a tar cannot be read.
        """
        yield from self._from_tars() if self.tars else self._from_files()

    def _from_files(self) -> Iterator[Sample]:
        stems = [file.relative_to(self.root).with_suffix("") for file in self.files]
        for i, file in enumerate(self.files):
            # Sorted by stem, so pictures that differ in the ending only are neighbours.
            twin = stems[i] in (stems[i - 1] if i else None, *stems[i + 1 : i + 2])
            name = str(file.relative_to(self.root))
            key = safe_key(name if twin else str(stems[i]), always_digest=twin)
            ending = _safe_ending(file.suffix.lstrip(".").lower() or "none")
            try:
                yield Sample(key, file.read_bytes(), ending, printable(name))
            except OSError as error:
                yield Sample(key, b"", ending, printable(name), fault=f"cannot be read: {error.strerror}")

    def _from_tars(self) -> Iterator[Sample]:
        for tar in self.files:
            # Keys are unique per record of a tar only; several tars may use the same ones.
            folder = "" if len(self.files) == 1 else str(tar.relative_to(self.root).with_suffix("")) + "/"
            seen: Counter[str] = Counter()
            try:
                for key, ending, image in foreign_pictures(tar.read_bytes()):
                    seen[key] += 1
                    name = folder + key + (f"#{seen[key]}" if seen[key] > 1 else "")
                    fault = "the tar's record holds no picture" if image is None else None
                    source = printable(f"{tar.relative_to(self.root)}!{key}")
                    yield Sample(safe_key(name), image or b"", _safe_ending(ending), source, fault=fault)
            except (tarfile.TarError, OSError) as error:
                raise SourceError(f"'{tar}' cannot be read as a webdataset tar: {error}") from error


def printable(name: str) -> str:
    r"""A file name as valid Unicode: bytes that are none (old encodings) as ``\xe9``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _safe_ending(extension: str) -> str:
    return extension if re.fullmatch(r"[a-z0-9]{1,8}", extension) else "bin"


def safe_key(name: str, always_digest: bool = False) -> str:
    """A key that is safe as file name, tar member and column value, and different for different names.

    Folders become `__`. A name with other than letters, digits, `_` and `-`, an overlong one, or
    one that could be mistaken for such a replacement, gets a digest of the original.

    >>> safe_key("2007_000033"), safe_key("cats/a b")
    ('2007_000033', 'cats__a_b-49207c49')
    """
    flat = name.replace("/", "__")
    slug = re.sub(r"[^A-Za-z0-9_-]", "_", flat)[:_KEY_LENGTH].lstrip("-") or "_"
    faithful = slug == flat and flat.replace("__", "/") == name
    looks_digested = re.search(r"-[0-9a-f]{8}$", slug) is not None
    if faithful and not looks_digested and not always_digest:
        return slug
    return f"{slug}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def open_source(source: str, leave_out: str | None = None) -> Source:
    """Find the pictures of a folder, a single picture, or tars (a path, a glob, or braces).

    Args:
        leave_out: a folder not to read, such as a run folder inside the source.

    Raises:
        SourceError: nothing there, no pictures, or a file that is no picture.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path.resolve(), leave_out and Path(leave_out).expanduser().resolve())
    if source.endswith(".tar"):
        return _open_tars(source)
    if path.is_file():
        return _open_picture(path.resolve())
    raise SourceError(f"source '{source}' does not exist; give a folder of pictures, a picture, or tars")


def _walk(folder: Path, leave_out: Path | str | None) -> Iterator[Path]:
    """All files below a folder, linked folders included once, hidden names left out."""

    def unreadable(error: OSError) -> None:
        raise SourceError(f"cannot read folder '{error.filename}': {error.strerror}") from error

    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        real = os.path.realpath(place)
        if real in seen or Path(real) == leave_out:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place) / name for name in names if not name.startswith("."))


def _open_folder(folder: Path, leave_out: Path | str | None) -> Source:
    ignored: Counter[str] = Counter()
    files = []
    for file in _walk(folder, leave_out):
        ending = file.suffix.lower()
        # A broken link is kept, to be quarantined: nothing named like a picture is lost in silence.
        if ending.lstrip(".") in IMAGE_EXTENSIONS or not ending:
            files.append(file)
        else:
            ignored[printable(ending)] += 1
    if not files:
        tars = f"; for webdataset tars give '{folder}/*.tar'" if ignored[".tar"] else ""
        raise SourceError(f"no pictures in '{folder}'{tars}")
    files.sort(key=lambda f: (str(f.relative_to(folder).with_suffix("")), f.suffix))
    return Source(printable(str(folder)), folder, tuple(files), False, ignored)


def _open_tars(pattern: str) -> Source:
    expanded = [str(Path(p).expanduser()) for p in braceexpand.braceexpand(pattern)]
    files = sorted({Path(f).resolve() for p in expanded for f in (glob.glob(p) or [p])})
    missing = [f for f in files if not f.is_file()]
    if missing:
        raise SourceError(f"'{missing[0]}' does not exist" + (f" (and {len(missing) - 1} more)" if missing[1:] else ""))
    for file in files:
        if not tarfile.is_tarfile(file):
            raise SourceError(f"'{file}' is not a tar")
    root = Path(os.path.commonpath([f.parent for f in files]))
    return Source(printable(pattern), root, tuple(files), True, Counter())


def _open_picture(file: Path) -> Source:
    try:
        with Image.open(file):
            pass
    except UnidentifiedImageError as error:
        raise SourceError(f"'{file}' is not a picture in a known format") from error
    except Exception as error:  # Pillow raises nearly any type on hostile bytes
        raise SourceError(f"'{file}' cannot be read as a picture: {error}") from error
    return Source(printable(str(file)), file.parent, (file,), False, Counter())
