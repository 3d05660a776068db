"""Text files of unknown origin: whatever program wrote them, by their byte-order mark."""

from __future__ import annotations

import codecs

# The longest first: UTF-32's mark begins like UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def text_of(data: bytes) -> str:
    r"""The text in a file: UTF-8, or what its byte-order mark says (Windows PowerShell writes UTF-16).

    >>> text_of("a.jpg".encode("utf-16")), text_of(b"a.jpg")
    ('a.jpg', 'a.jpg')

    Raises:
        ValueError: it is no such text; says so in words.
    """
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise ValueError(f"is not {name} text: {error.reason} at byte {error.start}; save it as UTF-8") from error
