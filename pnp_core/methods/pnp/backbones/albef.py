"""ALBEF: the same parts as BLIP, but image and text meet in the upper half of the text encoder only.

Not in transformers; `pnp-ovss convert-weights` makes its checkpoints (see `convert`).
"""

from __future__ import annotations

from typing import Any, ClassVar, cast, no_type_check

import torch
from transformers import BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionModel

from pnp_core.methods.pnp.backbones.base import Backbone
from pnp_core.methods.pnp.backbones.checkpoint import Checkpoint
from pnp_core.methods.pnp.backbones.fusion import BlipVision, FusionModel
from pnp_core.methods.pnp.backbones.loading import load_pretrained
from pnp_core.methods.pnp.backbones.towers import FusionConfig, FusionWeights
from pnp_core.methods.pnp.config import BackboneConfig


@no_type_check  # transformers makes the initialiser, and calls it with more than it declares
class AlbefConfig(FusionConfig):
    """Both sides are configured as BLIP's."""

    model_type = "albef"
    sub_configs_defaults: ClassVar[Any] = {"vision_config": BlipVisionConfig, "text_config": BlipTextConfig}


class AlbefForImageTextRetrieval(FusionWeights):
    """Holds the weights."""

    config_class = AlbefConfig
    base_model_prefix = "albef"

    def __init__(self, config: AlbefConfig) -> None:
        super().__init__(config)
        self.vision_model = BlipVisionModel(cast(BlipVisionConfig, config.vision_config))
        self.post_init()


def load(config: BackboneConfig, checkpoint: Checkpoint, device: torch.device) -> Backbone:
    """Load a converted checkpoint for inference.

    Raises:
        CheckpointError: weights missing or of another shape than config.json says.
    """
    model, tokenizer = load_pretrained(AlbefForImageTextRetrieval, checkpoint.folder)
    return FusionModel(BlipVision(model.vision_model), model, tokenizer, config, device)
