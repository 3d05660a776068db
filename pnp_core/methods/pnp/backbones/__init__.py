"""Vision-language models by name; adding one is a module with `load` and its card, a YAML file of the same name.

What needs a model imports torch, which takes seconds: it waits until it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pnp_core.methods.pnp.backbones.cards import BackboneCard, backbone_card, backbone_names
from pnp_core.methods.pnp.backbones.checkpoint import Checkpoint, locate_checkpoint

if TYPE_CHECKING:
    from pnp_core.methods.pnp.backbones.base import Backbone, Match
    from pnp_core.methods.pnp.backbones.known import BACKBONES, load_backbone

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneCard",
    "Checkpoint",
    "Match",
    "backbone_card",
    "backbone_names",
    "load_backbone",
    "locate_checkpoint",
]

_PLACES = {"BACKBONES": "known", "load_backbone": "known", "Backbone": "base", "Match": "base"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
