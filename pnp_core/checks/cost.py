"""What running a model costs on a device, as it is measured and told."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Cost:
    """Of one picture: of a backbone a pass with one caption and the gradient, of a method all it does for one class.

    Attributes:
        memory_gb: weights and the largest intermediate results; of a measurement, the process's peak.
    """

    seconds: float
    memory_gb: float


def peak_memory(device: torch.device) -> float:
    """The most memory this process has had so far, GB: on a GPU the GPU's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def say_device(device: torch.device) -> str:
    """A device in words."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
