"""Names of unknown origin made safe: in paths, tars, columns and on screens."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

_KEY_LENGTH = 100
_DIGITS = 16


def printable(name: str) -> str:
    r"""A file name as valid Unicode: bytes that are none (old encodings) as ``\xe9``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def split_ending(name: str) -> tuple[str, str]:
    """A file name without its ending, and the ending, lower case and without the dot.

    A name that is nothing but an ending keeps it.

    >>> split_ending("a.d/B.JPG"), split_ending("a.d/x"), split_ending(".jpg")
    (('a.d/B', 'jpg'), ('a.d/x', ''), ('.jpg', 'jpg'))
    """
    base = name.rsplit("/", 1)[-1]
    front, dot, ending = base.rpartition(".")
    if not dot or not ending:
        return name, ""
    return (name[: -len(ending) - 1] if front else name), ending.lower()


def safe_ending(name: str) -> str:
    """The ending of a file name, lower case and without the dot, fit for a tar member.

    >>> safe_ending("a/B.JPG"), safe_ending("x"), safe_ending("x.j?p")
    ('jpg', 'none', 'bin')
    """
    ending = split_ending(name)[1] or "none"
    return ending if re.fullmatch(r"[a-z0-9]{1,8}", ending) else "bin"


def safe_key(name: str, always_digest: bool = False) -> str:
    """A key that is safe as file name, tar member and column value, and different for different names.

    Folders become `__`. A name with other than letters, digits, `_` and `-`, an overlong one, or
    one that could be mistaken for such a replacement, gets a digest of the original.

    >>> safe_key("2007_000033"), safe_key("cats/a b")
    ('2007_000033', 'cats__a_b-49207c49b7e3c6c6')
    """
    flat = name.replace("/", "__")
    slug = re.sub(r"[^A-Za-z0-9_-]", "_", flat)[:_KEY_LENGTH].lstrip("-") or "_"
    faithful = slug == flat and flat.replace("__", "/") == name
    looks_digested = re.search(rf"-[0-9a-f]{{{_DIGITS}}}$", slug) is not None
    if faithful and not looks_digested and not always_digest:
        return slug
    return f"{slug}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:_DIGITS]}"


class UniqueNames:
    """Tells repeated names apart: the second `a` becomes `a#2`."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, name: str) -> str:
        """The name, with its number when it was there before."""
        self._seen[name] += 1
        number = self._seen[name]
        if number == 1:
            return name
        while f"{name}#{number}" in self._seen:  # a name may look like a numbered one
            number += 1
        self._seen[f"{name}#{number}"] += 1
        return f"{name}#{number}"
