"""Vision-language models by name; adding one is one file and one line here."""

from __future__ import annotations

from functools import lru_cache

import torch

from pnp_core.backbones import blip
from pnp_core.backbones.base import Backbone, Checkpoint, Match
from pnp_core.config import BackboneConfig
from pnp_core.errors import UnknownNameError, UsageError

__all__ = ["Backbone", "Checkpoint", "Match", "load_backbone", "locate_checkpoint", "resolve_device"]

_MODULES = {"blip": blip}


def _module(name: str):
    if name not in _MODULES:
        raise UnknownNameError("backbone", name, _MODULES)
    return _MODULES[name]


def locate_checkpoint(config: BackboneConfig) -> Checkpoint:
    """Find the weights (download them if they are on the hub) without loading them.

    Raises:
        UnknownNameError: no such backbone.
        CheckpointError: not found, or not what the backbone needs.
    """
    return _module(config.name).locate(config)


def resolve_device(device: str) -> torch.device:
    """The torch device of a configuration value.

    Raises:
        UsageError: torch does not know or have it.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device '{device}' is not available: {str(error).splitlines()[0]}") from error
    return resolved


@lru_cache(maxsize=4)
def load_backbone(config: BackboneConfig, checkpoint: Checkpoint, device: str) -> Backbone:
    """Load a model for inference; a process keeps the last ones for the next shard (several GPUs have one each).

    Raises:
        CheckpointError: the weights do not fit the architecture.
    """
    return _module(config.name).load(config, checkpoint, resolve_device(device))
