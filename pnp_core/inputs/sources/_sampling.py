"""Items and pictures drawn at random, by a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from pnp_core.data import Sample

Item = TypeVar("Item")


def shuffle(items: Sequence[Item], seed: int) -> list[Item]:
    """Items in a random order.

    >>> sorted(shuffle("abc", seed=0))
    ['a', 'b', 'c']
    """
    return [items[i] for i in np.random.default_rng(seed).permutation(len(items))]


def some_of(items: Sequence[Item], number: int, seed: int) -> tuple[Item, ...]:
    """`number` items drawn at random, in their order; all when there are not more.

    >>> some_of("abc", 5, seed=0)
    ('a', 'b', 'c')
    """
    return tuple(items[i] for i in sorted(shuffle(range(len(items)), seed)[:number]))


def reservoir(samples: Iterator[Sample], number: int, seed: int) -> Iterator[Sample]:
    """`number` pictures drawn at random, in their order: all are read, and no more than that are in memory.

    Algorithm R (Vitter 1985).
    """
    random = np.random.default_rng(seed)
    kept: list[tuple[int, Sample]] = []
    for position, sample in enumerate(samples):
        if position < number:
            kept.append((position, sample))
        elif (slot := int(random.integers(0, position + 1))) < number:
            kept[slot] = (position, sample)
    yield from (sample for _, sample in sorted(kept, key=lambda pair: pair[0]))


def counted(samples: Iterator[Sample], number: int, seed: int) -> tuple[int, list[Sample]]:
    """As `reservoir`, and how many there are in all."""
    total = 0

    def counting() -> Iterator[Sample]:
        nonlocal total
        for sample in samples:
            total += 1
            yield sample

    kept = list(reservoir(counting(), number, seed))
    return total, kept
