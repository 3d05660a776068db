"""What the text in a table's cell or a list's line is: a picture, the place of one, or something else."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from pathlib import Path
from unicodedata import category
from urllib.parse import unquote_to_bytes, urlsplit

from pnp_core.inputs.images import IMAGE_EXTENSIONS
from pnp_core.inputs.sources.base import FileRef, is_url
from pnp_core.inputs.sources.keys import printable, split_ending
from pnp_core.storage.first_bytes import refusal

_DATA_URI = re.compile(r"\s*data:[^,]{0,200},", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{32,}={0,2}")
_LOOKED_AT = 1024
_LONGEST_PATH = 4096
_SHOWN = 40


def image_text(text: str) -> bytes | None:
    """A picture that is written as text, a data URI or base64; None when the text is neither.

    >>> image_text("data:image/gif;base64,R0lGODlh"), image_text("cats/1.png")
    (b'GIF89a', None)

    Raises:
        ValueError: a data URI that cannot be decoded.
    """
    if head := _DATA_URI.match(text):
        body = text[head.end() :]
        try:
            return _decoded(body) if ";base64" in head.group().lower() else unquote_to_bytes(body)
        except binascii.Error as error:
            raise ValueError("its data URI cannot be decoded: it is no base64") from error
    return _base64_image(text)


def _base64_image(text: str) -> bytes | None:
    head = "".join(text[:_LOOKED_AT].split())
    if not _BASE64.fullmatch(head):
        return None
    start = _decoded(head[: len(head) // 4 * 4])
    if refusal(start) is not None and start[4:8] != b"ftyp":  # HEIF is a picture, if none that is read
        return None
    try:
        return _decoded(text)
    except binascii.Error:
        return None


def _decoded(text: str) -> bytes:
    """The bytes of base64 in either alphabet, whether or not it is filled up."""
    plain = "".join(text.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _is_place(text: str, folder: FileRef) -> bool:
    """Whether a text may be the path or URL of a picture."""
    if is_url(text):
        return True
    if len(text) > _LONGEST_PATH or any(category(c) == "Cc" for c in text):
        return False
    if (
        split_ending(urlsplit(f"//host/{text}").path)[1] in IMAGE_EXTENSIONS
        or split_ending(text)[1] in IMAGE_EXTENSIONS
    ):
        return True
    if not folder.local:
        return not re.search(r"\s", text)
    try:
        return Path(folder.path, text).exists()
    except OSError:
        return False


def strange_text(texts: Iterable[str], folder: FileRef) -> str | None:
    """What texts are of which none is a picture or may be the place of one; None when one is, or there are none.

    Args:
        folder: what paths are relative to.
    """
    first = None
    for text in texts:
        try:
            if image_text(text) is not None or _is_place(text, folder):
                return None
        except ValueError:
            return None
        first = first or text
    return None if first is None else _kind(first)


def _kind(text: str) -> str:
    if _BASE64.fullmatch("".join(text[:_LOOKED_AT].split())):
        return "base64 of something that is no picture"
    line = printable(" ".join(text.split()))
    shown = f"'{line[:_SHOWN]}{' ...' if len(line) > _SHOWN else ''}'"
    return f"JSON such as {shown}" if line.startswith(("{", "[")) else f"text such as {shown}"
