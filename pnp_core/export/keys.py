"""A file of keys: which pictures are exported."""

from __future__ import annotations

from pathlib import Path

from pnp_core.errors import UsageError


def read_keys(file: str) -> frozenset[str]:
    """Keys of pictures, one per line; empty lines do not count.

    Raises:
        UsageError: the file is missing, no text, or empty.
    """
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read '{file}': {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"'{file}' is no text in UTF-8: one key per line is wanted") from error
    keys = frozenset(filter(None, map(str.strip, text.splitlines())))
    if not keys:
        raise UsageError(f"'{file}' names no picture: one key per line is wanted")
    return keys
