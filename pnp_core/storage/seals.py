"""JSON that carries its own digest, so that a flipped bit in it is noticed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SEAL = "seal"


def sha256(data: bytes) -> str:
    """Hex digest of some bytes."""
    return hashlib.sha256(data).hexdigest()


def json_bytes(value: Any) -> bytes:
    """A value as JSON for people and programs; the same value always gives the same bytes."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def sealed(value: dict[str, Any]) -> bytes:
    """A JSON object with a digest of the rest of it.

    >>> unsealed(sealed({"a": 1}))
    {'a': 1}
    """
    return json_bytes({**value, SEAL: sha256(json_bytes(value))})


def unsealed(data: bytes) -> dict[str, Any] | None:
    """The object that was sealed; None when the bytes are not what `sealed` made of it.

    >>> unsealed(sealed({"a": 1}).replace(b"1", b"2", 1)) is None
    True
    """
    value = parsed(data)
    if value is None:
        return None
    seal = value.pop(SEAL, None)
    return value if isinstance(seal, str) and data == sealed(value) else None


def parsed(data: bytes) -> dict[str, Any] | None:
    """A JSON object, None when the bytes are none.

    >>> parsed(b"[1, 2]") is parsed(b"{") is None
    True
    """
    try:
        value = json.loads(data)
    except ValueError:  # of JSON and of UTF-8
        return None
    return value if isinstance(value, dict) else None
