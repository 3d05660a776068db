"""What the training scripts share: arguments and the learning rate's course."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch


def parser(description: str | None) -> argparse.ArgumentParser:
    """Seed, place, pictures drawn beforehand, batch size, threads."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--scenes", type=int, default=16000)
    made.add_argument("--windows", type=int, default=12000)
    made.add_argument("--batch", type=int, default=64)
    made.add_argument("--threads", type=int, default=2)
    return made


def read_arguments(made: argparse.ArgumentParser) -> dict[str, Any]:
    """The arguments of `train`; the number of threads is set."""
    arguments = vars(made.parse_args())
    torch.set_num_threads(arguments.pop("threads"))
    return arguments


def set_rate(optimizer: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    """Warm-up over 200 steps, then a cosine down to a hundredth."""
    factor = min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        group["lr"] = rate * max(factor, 0.01)
