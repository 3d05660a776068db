"""Batches that fit into memory: where one does not it is halved, and so are those to come."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

from pnp_core.stages.config import RuntimeConfig

Item = TypeVar("Item")
Result = TypeVar("Result")
ON_CPU, ON_GPU = 16, 128
"""Images together where the number is `auto`: more are no faster on a CPU. Those that do not fit are halved."""
LOGGER = "pnp_ovss.memory"
"""Log that says when a batch was halved."""


def batch_size(runtime: RuntimeConfig) -> int:
    """The most images together that a run asks for."""
    if runtime.batch_size != "auto":
        return runtime.batch_size
    from pnp_core.devices import leaves_cpu

    return ON_GPU if leaves_cpu(runtime.device) else ON_CPU


class Fitting:
    """How many images of a stage fit into memory together, as far as that was found out in this process."""

    def __init__(self, stage: str, device: str, expected: bool = False) -> None:
        """Nothing is known yet.

        Args:
            expected: it is no news when a batch does not fit.
        """
        self._stage, self._device, self._expected = stage, device, expected
        self.most: int | None = None
        """None while every batch fitted."""

    def parts(self, batch: Sequence[Item], work: Callable[[Sequence[Item]], Result]) -> Iterator[Result]:
        """What `work` makes of a batch, whole or in parts, in order.

        Raises:
            Exception: that of `work`; out of memory where a single image does not fit.
        """
        while batch:
            size = min(self.most or len(batch), len(batch))
            try:
                result = work(batch[:size])
            except Exception as error:
                if size == 1 or not _is_out_of_memory(error):
                    raise
                result = None
            if result is None:  # no longer in `except`: the error keeps what was in memory
                self._halve(size)
                continue
            yield result
            batch = batch[size:]

    def _halve(self, size: int) -> None:
        from pnp_core.devices import free_cached

        warned, self.most = self._expected or self.most is not None, size // 2
        free_cached(self._device)
        if not warned:
            logging.getLogger(LOGGER).warning(
                "%s: no memory for a batch of %d on device %s, goes on with %d, and fewer where that is too many; "
                "--batch-size %d would begin with it",
                *(self._stage, size, self._device, self.most, self.most),
            )


def _is_out_of_memory(error: BaseException) -> bool:
    from pnp_core.devices import is_out_of_memory  # imports torch, which a run without any work does not need

    return is_out_of_memory(error)


@lru_cache(maxsize=64)
def fitting(stage: str, fingerprint: str, runtime: RuntimeConfig) -> Fitting:
    """The one of all shards of a stage in this process."""
    return Fitting(stage, runtime.device, expected=runtime.batch_size == "auto")
