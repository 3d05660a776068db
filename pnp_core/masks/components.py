"""Connected components of a label map, and maps of numbers as runs along their rows."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Integer


def components(labels: Integer[np.ndarray, "H W"]) -> Int[np.ndarray, "H W"]:
    """Number the pieces of each class that hang together, over corners too.

    Returns:
        int32: 0 where the label is 0, else the piece from 1, in the order of their first pixels row by row.

    >>> components(np.array([[1, 0, 2], [0, 1, 2], [3, 0, 1]])).tolist()
    [[1, 0, 2], [0, 1, 2], [3, 0, 1]]
    """
    starts, lengths = row_runs(labels)
    run = np.repeat(np.arange(len(starts), dtype=np.int32), lengths).reshape(labels.shape)
    edges = [_edges(labels, run, upper, lower) for upper, lower in _NEIGHBOURS]
    root = _joined(len(starts), np.concatenate(edges))
    root[labels.ravel()[starts] == 0] = -1
    kept = np.unique(root)  # the first run of each piece, hence in their order
    kept = kept[kept >= 0]
    numbers = np.zeros(len(starts), dtype=np.int32)
    inside = root >= 0
    numbers[inside] = np.searchsorted(kept, root[inside]) + 1
    return numbers[run]


_ALL, _FROM, _TO = slice(None), slice(1, None), slice(None, -1)
_NEIGHBOURS = (((_TO, _ALL), (_FROM, _ALL)), ((_TO, _TO), (_FROM, _FROM)), ((_TO, _FROM), (_FROM, _TO)))
"""Pixels of one row and those below, below to the right and to the left."""


def _edges(labels: np.ndarray, run: np.ndarray, upper: tuple, lower: tuple) -> Int[np.ndarray, "E 2"]:
    """Runs of one label that touch."""
    touch = (labels[upper] == labels[lower]) & (labels[upper] != 0)
    return np.unique(np.stack([run[upper][touch], run[lower][touch]], axis=1), axis=0)


def _joined(number: int, edges: Int[np.ndarray, "E 2"]) -> Int[np.ndarray, " N"]:
    """The least of what each hangs together with."""
    root = np.arange(number)
    while True:
        ends = root[edges]
        least = ends.min(axis=1, initial=number)
        if (ends == least[:, None]).all():
            return root
        np.minimum.at(root, ends[:, 0], least)
        np.minimum.at(root, ends[:, 1], least)
        while (root != root[root]).any():
            root = root[root]


def row_runs(values: Integer[np.ndarray, "H W"]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Where runs of one value begin, counted over all pixels row by row, and how long they are; none is over two rows.

    >>> [found.tolist() for found in row_runs(np.array([[4, 4, 0], [0, 0, 4]]))]
    [[0, 2, 3, 5], [2, 1, 2, 1]]
    """
    begins = np.ones(values.shape, dtype=bool)
    begins[:, 1:] = values[:, 1:] != values[:, :-1]
    starts = np.flatnonzero(begins)
    return starts, np.diff(starts, append=values.size)


def packed(numbers: Integer[np.ndarray, "H W"]) -> Float[np.ndarray, "2 N"]:
    """A map of whole numbers below 2^24 as its runs: their numbers and lengths, which float32 holds to the last bit."""
    starts, lengths = row_runs(numbers)
    return np.stack([numbers.ravel()[starts], lengths]).astype(np.float32)


def unpacked(runs: Float[np.ndarray, "2 N"], size: tuple[int, int]) -> Int[np.ndarray, "H W"]:
    """The map that `packed` was given.

    >>> unpacked(packed(np.array([[7, 7], [0, 9]])), (2, 2)).tolist()
    [[7, 7], [0, 9]]
    """
    return np.repeat(runs[0].astype(np.int32), runs[1].astype(np.int64)).reshape(size)
