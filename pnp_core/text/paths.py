"""Paths for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath


def shortest_names(paths: Sequence[str]) -> list[str]:
    """The shortest ends of some paths or URLs that tell them apart.

    >>> shortest_names(["runs/a/eval", "runs/b/eval"]), shortest_names(["s3://bucket/one", "two/"])
    (['a/eval', 'b/eval'], ['one', 'two'])
    """
    parts = [PurePosixPath(path.split("://")[-1]).parts for path in paths]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]).lstrip("/") for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)
