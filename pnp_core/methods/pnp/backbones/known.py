"""Models by the name of their backbone, and loaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch

from pnp_core.devices import resolve_device
from pnp_core.methods.pnp.backbones.base import Backbone
from pnp_core.methods.pnp.backbones.cards import backbone_names
from pnp_core.methods.pnp.backbones.checkpoint import Checkpoint
from pnp_core.methods.pnp.config import BackboneConfig
from pnp_core.registry import Registry

BACKBONES: Registry[Callable[[BackboneConfig, Checkpoint, torch.device], Backbone]] = Registry(
    "backbone", None, {name: f"pnp_core.methods.pnp.backbones.{name}:load" for name in backbone_names()}
)
"""(configuration, weights, device) -> model. Their modules import transformers, which takes seconds."""


@lru_cache(maxsize=4)
def load_backbone(config: BackboneConfig, checkpoint: Checkpoint, device: str) -> Backbone:
    """Load a model for inference; a process keeps the last ones for the next shard (several GPUs have one each).

    Raises:
        CheckpointError: the weights do not fit the architecture.
    """
    return BACKBONES.get(config.name)(config, checkpoint, resolve_device(device))
