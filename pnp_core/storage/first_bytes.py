"""What a file is, by its first bytes: only pictures are kept.

A list line, a row's path or a link may name any file that the user who runs this can read. So what does not begin like
a picture is never stored, wherever it came from: it is set aside with the reason alone. A damaged picture begins like
one and is stored; the decoder says later what is wrong with it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from pnp_core.data import Sample

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "PPM", "JPEG2000")
"""Whatever a file is called, nothing else is tried: Pillow would hand EPS to Ghostscript, for one."""
UNKNOWN = "not a picture in a known format"
_LOOKED_AT = 1024
"""Bytes by which text and zeros are told."""
_LONGEST_HEADER = 1 << 16
"""Bytes in which a portable pixmap must have its size, comments included."""

_IMAGES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n",  # JPEG 2000 in boxes
    b"\xff\x4f\xff\x51",  # its codestream
    b"MM\x00\x2a",  # TIFF
    b"II\x2a\x00",
    b"MM\x2a\x00",  # in a byte order that some programs get wrong
    b"II\x00\x2a",
    b"MM\x00\x2b",  # BigTIFF
    b"II\x2b\x00",
)
# The letters alone are how a text may begin: width and height must follow, and the greatest value where there is one.
_NUMBER = rb"(?:\s|#[^\r\n]*[\r\n])+[-+.\d]+"
_PORTABLE = re.compile(
    rb"P(?:[14](?:%(n)b){2}|(?:[2356f]|0CMYK|yP|yRGBA|yCMYK)(?:%(n)b){3})(?:\s|\Z)" % {b"n": _NUMBER}
    + rb"|P7\s(?:\s|#[^\r\n]*[\r\n])*(?:332|WIDTH|HEIGHT|DEPTH|MAXVAL|TUPLTYPE)\s"
)
_BITMAP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

_REFUSED = (
    (b"\x00\x05\x16\x07", "macOS side-car file (AppleDouble), not a picture"),
    (b"version https://git-lfs", "git-lfs pointer, not the picture itself: `git lfs pull` fetches it"),
    (b"/annex/objects/", "git-annex pointer, not the picture itself: `git annex get` fetches it"),
)
_OTHERS = (
    (b"%PDF-", "a PDF document"),
    (b"%!PS", "PostScript"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data"),
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"qoif", "QOI"),
    (b"PF\n", "a portable map of floats in colour (PFM)"),
    (b"\x00\x00\x01\x00", "a Windows icon"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (b"RIFF", "sound or video (RIFF)"),
    (b"OggS", "sound or video (Ogg)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3\x00", "a SQLite database"),
    (b"\x7fELF", "a program"),
)


def refusal(data: bytes) -> str | None:
    r"""Why data cannot be a picture, by its first bytes and in one line; None when they are a picture's.

    Nothing of the data is in the reason.

    >>> refusal(b"root:x:0:0:root:/root:/bin/sh\n")
    'not a picture in a known format: by its first bytes it is text'
    >>> refusal(b"\xff\xd8\xff\xe0 and whatever follows") is None
    True
    """
    if not data:
        return "empty file (0 bytes)"
    if _begins_like_a_image(data):
        return None
    for start, reason in _REFUSED:
        if data.startswith(start):
            return reason
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "HEIF/HEIC is not supported; convert it to JPEG or PNG"
    kind = _kind(data)
    return f"{UNKNOWN}: by its first bytes it is {kind}" if kind else f"{UNKNOWN}: its first bytes are no picture's"


def pointer(data: bytes) -> str | None:
    """What a file is that only stands for another, by its first bytes; None when it is none.

    >>> pointer(b"version https://git-lfs.github.com/spec/v1")
    'git-lfs pointer, not the file itself: `git lfs pull` fetches it'
    """
    reason = next((reason for start, reason in _REFUSED[1:] if data.startswith(start)), None)
    return reason and reason.replace("the picture itself", "the file itself")


def only_images(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Samples as they are; of those that are no picture the bytes are put away and the reason is kept."""
    for sample in samples:
        reason = refusal(sample.image) if sample.image else None  # an empty one has its fault, or the decoder says so
        yield sample if reason is None else replace(sample, image=b"", fault=reason)


def _begins_like_a_image(data: bytes) -> bool:
    if data.startswith(_IMAGES):
        return True
    if data[:4] == b"RIFF":
        return data[8:12] == b"WEBP"
    if data[4:8] == b"ftyp":
        return _is_avif(data)
    return _is_bitmap(data) or _PORTABLE.match(data, 0, _LONGEST_HEADER) is not None


def _is_avif(data: bytes) -> bool:
    """Whether the brands that a file claims have AVIF's among them: its main one may be that of any HEIF file."""
    end = min(int.from_bytes(data[:4], "big"), _LOOKED_AT)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    return not brands.isdisjoint(_AVIF_BRANDS)


def _is_bitmap(data: bytes) -> bool:
    """Whether there is a BMP's header of a known size, behind the file's own or, in a DIB, without it."""
    start = 14 if data[:2] == b"BM" else 0
    size = int.from_bytes(data[start : start + 4], "little")
    if size not in _BITMAP_HEADERS:
        return False
    planes = start + (8 if size == 12 else 12)
    return start > 0 or data[planes : planes + 2] == b"\x01\x00"


def _kind(data: bytes) -> str | None:
    """What else data begins like."""
    known = next((kind for start, kind in _OTHERS if data.startswith(start)), None)
    if known:
        return known
    head = data[:_LOOKED_AT]
    if data[4:8] == b"ftyp":
        return "an MP4 or QuickTime video"
    if data[257:262] == b"ustar":
        return "a tar archive"
    if not head.strip(b"\0"):
        return "nothing but zeros"
    return _kind_of_text(head) if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    if head.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE)):
        return True
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # a character may be cut at the end
    except UnicodeDecodeError:
        return False
    return not re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text)


def _kind_of_text(head: bytes) -> str:
    lower = head.lower()
    if b"<svg" in lower:
        return "an SVG drawing"
    start = lower.removeprefix(codecs.BOM_UTF8).lstrip()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page (HTML)"
    return "XML" if start.startswith(b"<?xml") else "text"
