"""Text of unknown origin as a person may see it: characters that act on a terminal or hide are spelled out.

File names, class names, comments and reasons may hold anything: an escape sequence that rewrites the terminal, an
override that turns the rest of a line around, a new line that passes for one of ours. Files for machines (Parquet,
CSV, manifests) keep such text as it is; whatever a person reads goes through here.
"""

from __future__ import annotations

import json
import re
from typing import Any

# C0 and C1 controls with DEL; soft hyphen; Arabic letter mark; Mongolian vowel separator; spaces without width;
# marks, embeddings, overrides and isolates of direction; line and paragraph separators; invisible operators; lone
# surrogates; byte order mark; annotations; notation controls that take no room; tags. Not the two joiners
# (U+200C, U+200D): Persian, Indic scripts and emoji need them.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)


def visible(text: str, lines: bool = False) -> str:
    r"""A text with nothing in it that acts or hides.

    Args:
        lines: the text is ours and has several lines: line feeds stay.

    Returns:
        Printable text as it was, every other character as ``\x1b``, ``\u202e`` or ``\U000e0041``; what comes out
        stays as it is when it goes through again.

    >>> print(visible("cat\x1b[2J\u202egnp.jpg"))
    cat\x1b[2J\u202egnp.jpg
    """
    return _HIDDEN.sub(lambda found: found[0] if lines and found[0] == "\n" else _spelled(found[0]), text)


def _spelled(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible_json(value: Any, **how: Any) -> str:
    r"""JSON that may be printed: the same value, with characters that act or hide as its ``\u`` escapes.

    Args:
        how: for `json.dumps`, such as `indent`.

    >>> print(visible_json({"ö": "a\x9b2J"}))
    {"ö": "a\u009b2J"}
    """
    # Outside of strings JSON has no such character but the line feeds of an indent.
    text = json.dumps(value, ensure_ascii=False, **how)
    return _HIDDEN.sub(lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1], text)
