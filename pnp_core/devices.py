"""Where tensors are computed."""

from __future__ import annotations

import torch

from pnp_core.errors import UsageError


def resolve_device(device: str) -> torch.device:
    """The torch device of a configuration value.

    Raises:
        UsageError: torch does not know or have it.
    """
    if device == "auto":
        return torch.device(_best())
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        reason = reason if len(reason) < 120 else reason[:100].rsplit(" ", 1)[0] + " ..."
        raise UsageError(f"device '{device}' is not available: {reason}") from error
    return resolved


def default_threads() -> int:
    """Threads on the CPU that torch takes by itself in this process."""
    return torch.get_num_threads()


def leaves_cpu(device: str) -> bool:
    """Whether a configuration value means a device beside the CPU; it need not be there."""
    return _best() != "cpu" if device == "auto" else not device.startswith("cpu")


def _best() -> str:
    """The device that `auto` is here: a GPU of NVIDIA or AMD, one of Apple (MPS), else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def moved(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on a device; to a GPU by memory that it reads itself, so that nobody waits for the copy."""
    if device.type != "cuda":
        return batch.to(device)
    return batch.pin_memory().to(device, non_blocking=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device had no memory left for a tensor; the CPU and MPS say so in words alone."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = ("DefaultCPUAllocator", "can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def free_cached(device: str) -> None:
    """Give back what torch keeps of a device's memory for tensors to come."""
    kind = resolve_device(device).type
    if kind == "cuda":
        torch.cuda.empty_cache()
    elif kind == "mps":
        torch.mps.empty_cache()
