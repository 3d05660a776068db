"""Which class names a bundled model knows; quick, for nothing is loaded."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pnp_core.bundled import PHOTO, TINY
from pnp_core.inputs.scenes.shapes import CLASS_NAMES
from pnp_core.methods.pnp.backbones.photo_names import read_vocabulary

SHOWN = 10
"""Unknown names that a message lists."""


@dataclass(frozen=True)
class Unknown:
    """A class name that a bundled model was not trained on.

    Attributes:
        nearest: names that it knows and that are written alike or end in the same word, the best first; looked for only
            as far as a message lists names, for of thousands it takes minutes.
    """

    name: str
    nearest: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} (nearest: {', '.join(self.nearest)})" if self.nearest else self.name


def known_names(checkpoint: str) -> list[str]:
    """All names that a bundled checkpoint knows."""
    return sorted(CLASS_NAMES) if checkpoint == TINY else read_vocabulary().names


def unknown_names(checkpoint: str, names: Iterable[str]) -> list[Unknown]:
    """Those of some names that a bundled checkpoint does not know; none for other checkpoints, whatever they know."""
    if checkpoint == TINY:
        foreign = [name for name in names if name.lower() not in CLASS_NAMES]
        return _with_nearest(foreign, lambda name: difflib.get_close_matches(name.lower(), CLASS_NAMES))
    if checkpoint == PHOTO:
        vocabulary = read_vocabulary()
        return _with_nearest([name for name in names if not vocabulary.knows(name)], vocabulary.nearest)
    return []


def _with_nearest(names: Sequence[str], nearest: Callable[[str], Sequence[str]]) -> list[Unknown]:
    return [Unknown(name, tuple(nearest(name)) if n < SHOWN else ()) for n, name in enumerate(names)]


def listed(unknown: Sequence[Unknown]) -> str:
    """As many as a message can hold."""
    more = len(unknown) - SHOWN
    return ", ".join(map(str, unknown[:SHOWN])) + (f" and {more} more" if more > 0 else "")
