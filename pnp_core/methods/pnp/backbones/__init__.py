"""Vision-language models by name; adding one is a module with `load` and its card, a YAML file of the same name."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module

import torch

from pnp_core.errors import UsageError
from pnp_core.methods.pnp.backbones.base import Backbone, Checkpoint, Match
from pnp_core.methods.pnp.backbones.cards import BackboneCard, backbone_card, backbone_names
from pnp_core.methods.pnp.backbones.checkpoint import locate_checkpoint
from pnp_core.methods.pnp.config import BackboneConfig

__all__ = [
    "Backbone",
    "BackboneCard",
    "Checkpoint",
    "Match",
    "backbone_card",
    "backbone_names",
    "load_backbone",
    "locate_checkpoint",
    "resolve_device",
]


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
        reason = str(error).splitlines()[0]
        reason = reason if len(reason) < 120 else reason[:100].rsplit(" ", 1)[0] + " ..."
        raise UsageError(f"device '{device}' is not available: {reason}") from error
    return resolved


@lru_cache(maxsize=4)
def load_backbone(config: BackboneConfig, checkpoint: Checkpoint, device: str) -> Backbone:
    """Load a model for inference; a process keeps the last ones for the next shard (several GPUs have one each).

    Raises:
        CheckpointError: the weights do not fit the architecture.
    """
    # Only here, because a backbone's module imports transformers, which takes seconds.
    module = import_module(f"pnp_core.methods.pnp.backbones.{backbone_card(config.name).name}")
    return module.load(config, checkpoint, resolve_device(device))
