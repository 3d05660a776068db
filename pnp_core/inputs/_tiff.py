"""TIFF: which page is the picture, and the bands that Pillow does not read or reads wrongly."""

from __future__ import annotations

import io
import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Shaped
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pnp_core.errors import UnreadableImage

ORIENTATION, ICC_PROFILE = 274, 34675
_SUBFILE, _OLD_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 258, 259, 262
_SAMPLES, _SUB_DIRECTORIES, _EXTRA, _FORMAT = 277, 330, 338, 339
_GEOGRAPHIC = (33550, 33922, 34264, 34735, 42112, 42113)
_KEPT = (
    *(ORIENTATION, ICC_PROFILE, _SUBFILE, _OLD_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC),
    *(_SAMPLES, _SUB_DIRECTORIES, _EXTRA, _FORMAT, *_GEOGRAPHIC),
)
_MAGIC = (b"II\x2a\x00", b"MM\x00\x2a", b"II\x2b\x00", b"MM\x00\x2b")
_MOST_PAGES = 64
"""Pages that are looked at; a stack of slices may have thousands."""
_MOST_BYTES = 2 << 30
"""Of all bands together."""
_PLAIN, _DEFLATE = 1, (8, 32946)
_COMPRESSIONS = {5: "LZW", 6: "JPEG", 7: "JPEG", 8: "Deflate", 32946: "Deflate", 32773: "PackBits", 50000: "Zstandard"}
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab", 32803: "raw sensor"}
_BANDS = {"grey": 1, "RGB": 3, "CMYK": 4}
_KINDS = {1: "integers", 2: "signed integers", 3: "floats"}

# What it finds odd in a file that it reads is not for people; what it does not read is raised.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Page:
    """A page of a TIFF.

    Attributes:
        index: counted from 0.
        tags: number -> value, of those that say what the page holds.
        several: whether there is another page that is a picture of its own.
        note: what was passed over to find it, for people; empty when nothing was.
    """

    index: int
    tags: Mapping[int, Any]
    several: bool = False
    note: str = ""

    def number(self, tag: int, otherwise: int) -> int:
        """A tag's value, the first where it has several."""
        value = self.tags.get(tag, otherwise)
        return int(value[0] if isinstance(value, tuple) else value)

    @property
    def bits(self) -> int:
        """Of a sample."""
        return self.number(_BITS, 1)

    @property
    def samples(self) -> int:
        """Number of bands."""
        return self.number(_SAMPLES, 1)

    @property
    def colours(self) -> str:
        """What its bands show, as far as the file says."""
        return _COLOURS.get(self.number(_PHOTOMETRIC, 1), "other")

    @property
    def white_is_zero(self) -> bool:
        """Whether grey values count down from white."""
        return self.number(_PHOTOMETRIC, 1) == 0

    @property
    def geographic(self) -> bool:
        """Whether it says where on Earth it lies, or comes from GDAL: maps, aerial pictures."""
        return any(tag in self.tags for tag in _GEOGRAPHIC)

    @property
    def misread_by_pillow(self) -> bool:
        """Whether Pillow mixes up its planes, loses a narrow range of its 16 bits, mistakes its signs, or
        divides its colours by a band that may be no opacity.
        """
        deep = self.samples > 1 and self.bits == 16 and self.colours in _BANDS
        unsigned = self.bits == 32 and self.number(_FORMAT, 1) == 1  # it takes them for signed ones
        divided = self.number(_EXTRA, 0) == _ASSOCIATED and self.bits == 8 and self.colours in ("grey", "RGB")
        return (deep or unsigned or divided) and self.number(_COMPRESSION, _PLAIN) in (_PLAIN, *_DEFLATE)

    @property
    def left_out(self) -> int:
        """Bands beyond those of its colours; 0 where its colours are others than grey, RGB and CMYK."""
        return max(0, self.samples - _BANDS.get(self.colours, self.samples))

    def __str__(self) -> str:
        compression = self.number(_COMPRESSION, _PLAIN)
        coded = _COMPRESSIONS.get(compression, f"compression {compression}")
        bands = f"{self.samples} {self.colours} band{'s' * (self.samples > 1)} of {self.bits}-bit"
        return f"TIFF of {bands} {_KINDS.get(self.number(_FORMAT, 1), 'values')}" + f", {coded}" * (
            compression != _PLAIN
        )


def find_page(data: bytes) -> Page | None:
    """The page that is the picture: the first that is neither a reduced copy of another one nor a mask.

    None for other formats, and for a file without a page that can be read.

    Raises:
        UnreadableImage: there are reduced copies alone, and the picture is where it is not read.
    """
    pages = _directories(data) if data.startswith(_MAGIC) else []
    if not pages:
        return None
    whole = [index for index, tags in enumerate(pages) if not _subordinate(tags)]
    if whole:
        skipped = f"reduced copies or masks come first: page {whole[0] + 1} of the file is used" if whole[0] else ""
        return Page(whole[0], pages[whole[0]], len(whole) > 1, skipped)
    if any(_SUB_DIRECTORIES in tags for tags in pages):
        raise UnreadableImage(
            "TIFF with reduced copies alone as pages; the picture lies in a sub-directory, which is not read (camera "
            "raw files, such as DNG, are so): convert it to JPEG, PNG or plain TIFF"
        )
    return Page(0, pages[0], len(pages) > 1, "the file says that this is a reduced copy, and has no other page")


def _subordinate(tags: Mapping[int, Any]) -> bool:
    """Whether a page is a reduced copy of another one, or says which pixels of it count."""
    page = Page(0, tags)
    return bool(page.number(_SUBFILE, 0) & 0b101) or page.number(_OLD_SUBFILE, 1) == 2


def _directories(data: bytes) -> list[dict[int, Any]]:
    """The tags of the pages, as far as they can be read."""
    file = io.BytesIO(data)
    header = file.read(16 if data[2:4] in (b"\x2b\x00", b"\x00\x2b") else 8)
    kept: list[dict[int, Any]] = []
    seen = set()
    try:
        directory = ImageFileDirectory_v2(header)
        while directory.next and directory.next not in seen and len(kept) < _MOST_PAGES:
            seen.add(directory.next)
            file.seek(directory.next)
            directory.load(file)
            kept.append({tag: directory[tag] for tag in _KEPT if tag in directory})
    except Exception:  # Pillow's parser raises nearly any type on hostile bytes
        return kept
    return kept


@dataclass(frozen=True)
class Bands:
    """What a TIFF's page holds.

    Attributes:
        colour: (H, W, C) values of grey (C = 1), RGB (3) or CMYK (4), of the file's own type and range.
        opacity: (H, W) of the same type; None where no band claims to be it.
        premultiplied: whether the colours were multiplied by the opacity.
        notes: what was left out or guessed, for people.
    """

    colour: Shaped[np.ndarray, "H W C"]
    opacity: Shaped[np.ndarray, "H W"] | None
    premultiplied: bool
    notes: tuple[str, ...]


def read_bands(data: bytes, page: Page, max_pixels: int) -> Bands:
    """Read a page band by band, whatever its bits, types and planes.

    Raises:
        UnreadableImage: more than so many pixels, or a kind that is not read.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tiff = file.pages[page.index]
        assert isinstance(tiff, tifffile.TiffPage)
        if tiff.imagewidth * tiff.imagelength > max_pixels:
            raise UnreadableImage(f"{tiff.imagewidth}x{tiff.imagelength} pixels are over the limit of {max_pixels}")
        if not _is_readable(tiff, page):
            raise UnreadableImage(f"{page}: not read; convert it to 8 bits, of 1, 3 or 4 bands")
        if not len(tiff.dataoffsets) == len(tiff.databytecounts) == np.prod(tiff.chunked):
            raise UnreadableImage(f"{page}: parts of it are missing")
        _refuse_bomb(tiff, data)
        values = tiff.asarray(maxworkers=1).reshape(_shape(tiff))
    return _told_apart(np.moveaxis(values, 0, -1) if tiff.planarconfig == 2 else values, page)


def _shape(tiff: tifffile.TiffPage) -> tuple[int, int, int]:
    height, width, samples = tiff.imagelength, tiff.imagewidth, tiff.samplesperpixel
    return (samples, height, width) if tiff.planarconfig == 2 else (height, width, samples)


def _is_readable(tiff: tifffile.TiffPage, page: Page) -> bool:
    known = tiff.dtype is not None and tiff.dtype.kind in "uif" and tiff.imagedepth == 1
    small = tiff.nbytes <= _MOST_BYTES
    plain = tiff.compression == _PLAIN or (tiff.compression in _DEFLATE and tiff.predictor in (1, 2))
    return known and small and plain and page.colours in _BANDS


def _refuse_bomb(tiff: tifffile.TiffPage, data: bytes) -> None:
    """Raise UnreadableImage when a part unpacks to more than it should; tifffile would unpack all of it."""
    if tiff.compression == _PLAIN or tiff.dtype is None:
        return
    # Of parts at the edge some programs store the whole.
    most = 2 * int(np.prod(tiff.chunks)) * tiff.dtype.itemsize + 1024
    for start, length in zip(tiff.dataoffsets, tiff.databytecounts, strict=True):
        if len(zlib.decompressobj().decompress(data[start : start + length], most + 1)) > most:
            raise UnreadableImage("a part of the TIFF unpacks to more than its size (decompression bomb)")


_ASSOCIATED, _UNASSOCIATED = 1, 2


def _told_apart(values: Shaped[np.ndarray, "H W C"], page: Page) -> Bands:
    """Which bands are colours, which one opacity."""
    samples, extra = values.shape[-1], page.number(_EXTRA, 0)
    known = _BANDS[page.colours]
    notes = []
    if page.colours == "grey" and samples >= 3:
        known = 3
        notes.append(f"{samples} bands that the file does not name: the first three are taken for red, green and blue")
    if samples < known:
        raise UnreadableImage(f"{page}: there are too few bands")
    claimed = page.colours != "CMYK" and samples > known and extra in (_ASSOCIATED, _UNASSOCIATED)
    if beyond := samples - known - claimed:
        notes.append(f"{beyond} of {samples} bands left out")
    opacity = values[..., known] if claimed else None
    return Bands(values[..., :known], opacity, extra == _ASSOCIATED, tuple(notes))
