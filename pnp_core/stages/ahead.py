"""Batches that are made ready on threads while the one before is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Ready = TypeVar("Ready")
DECODERS = 4
"""Threads that decode; with what waits there are images of two batches in memory."""


def prepared_ahead(items: Iterable[Item], prepare: Callable[[Item], Ready], size: int) -> Iterator[list[Ready]]:
    """Batches of prepared items, in order; while one is worked on the next is being read and prepared.

    Args:
        prepare: runs on threads.
        size: items in a batch.
    """
    remaining = iter(items)
    pool, reader = (ThreadPoolExecutor(threads, name) for threads, name in ((DECODERS, "decode"), (1, "read")))

    def begin() -> list[Future[Ready]]:
        return [pool.submit(prepare, one) for one in islice(remaining, size)]

    try:
        batch = begin()
        while batch:
            following = reader.submit(begin)
            yield [future.result() for future in batch]
            batch = following.result()
    finally:  # whoever stops early does not wait for what nobody will look at
        for workers in (reader, pool):
            workers.shutdown(wait=False, cancel_futures=True)
