"""Names of classes, as people type them."""

from __future__ import annotations

from collections.abc import Sequence

from pnp_core.data import MAX_LABEL
from pnp_core.errors import ClassNameError


def clean_class_names(names: Sequence[str]) -> list[str]:
    """Strip class names and check them.

    Raises:
        ClassNameError: no name, an empty one, `background`, the same twice (case does not count), or over 65534.
    """
    cleaned = [" ".join(name.split()) for name in names]
    if not cleaned or not all(cleaned):
        raise ClassNameError(f"class names must not be empty: {list(names)!r}")
    if len(cleaned) > MAX_LABEL:
        raise ClassNameError(f"{len(cleaned)} classes are too many: masks hold labels 1 to {MAX_LABEL}")
    if "background" in (name.lower() for name in cleaned):
        raise ClassNameError("'background' is label 0 already; leave it out of the class names")
    seen: set[str] = set()
    for name in cleaned:
        if name.lower() in seen:
            raise ClassNameError(f"class '{name}' is given twice; class names must be unique")
        seen.add(name.lower())
    return cleaned
