"""Map on threads, in order, a bounded number of items ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def map_ahead(function: Callable[[In], Out], items: Iterable[In], workers: int = 4, ahead: int = 16) -> Iterator[Out]:
    """Like `map`, on threads; at most `ahead` results wait, so memory does not grow with the input.

    >>> list(map_ahead(abs, [-2, 1]))
    [2, 1]
    """
    remaining = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
        waiting: deque[Future[Out]] = deque(pool.submit(function, item) for item in islice(remaining, ahead))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(remaining, 1))
        finally:  # whoever stops listening early (a limit) does not wait for what is left
            for future in waiting:
                future.cancel()
