"""mPLUG: CLIP's image encoder, and a text encoder of ALBEF's build.

Six layers read the text, six more the text and the image (config_bert.json: `stride_layer` 6, so none of
them is the paper's connected layer, which attends to image and text side by side). Not in transformers; its
checkpoints are made by `pnp-ovss convert-weights` (see `pnp_core.methods.pnp.backbones.convert`).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, cast, no_type_check

import torch
from torch import nn
from torch.nn import functional as F
from transformers import BlipTextConfig, CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPVisionModel

from pnp_core.methods.pnp.backbones.base import Backbone
from pnp_core.methods.pnp.backbones.checkpoint import Checkpoint
from pnp_core.methods.pnp.backbones.fusion import FusionModel
from pnp_core.methods.pnp.backbones.loading import load_pretrained
from pnp_core.methods.pnp.backbones.towers import FusionConfig, FusionWeights
from pnp_core.methods.pnp.config import BackboneConfig


@no_type_check  # transformers makes the initialiser, and calls it with more than it declares
class MplugConfig(FusionConfig):
    """The image encoder is configured as CLIP's, the text encoder as BLIP's."""

    model_type = "mplug"
    sub_configs_defaults: ClassVar[Any] = {"vision_config": CLIPVisionConfig, "text_config": BlipTextConfig}


class MplugForImageTextRetrieval(FusionWeights):
    """Holds the weights; an image encoder wider than the text encoder is projected to its width."""

    config_class = MplugConfig
    base_model_prefix = "mplug"

    def __init__(self, config: MplugConfig) -> None:
        super().__init__(config)
        vision, text = cast(CLIPVisionConfig, config.vision_config), cast(BlipTextConfig, config.text_config)
        self.vision_model = CLIPVisionModel(vision)
        if vision.hidden_size != text.hidden_size:
            self.vision_projection = nn.Linear(vision.hidden_size, text.hidden_size)
            self.vision_norm = nn.LayerNorm(text.hidden_size, eps=text.layer_norm_eps)
        self.post_init()


class MplugVision:
    """CLIP's image encoder; its last layer norm is on all tokens, and they are brought to the text's width."""

    def __init__(self, model: MplugForImageTextRetrieval) -> None:
        self.patch_size: int = cast(Any, model.config.vision_config).patch_size
        self._clip = model.vision_model
        narrows = hasattr(model, "vision_projection")
        self._narrow = nn.Sequential(model.vision_projection, model.vision_norm) if narrows else nn.Identity()

    def to(self, device: torch.device, dtype: torch.dtype) -> MplugVision:
        """See `VisionTower`."""
        torch.nn.Module.to(self._clip, device=device, dtype=dtype)
        self._narrow.to(device=device, dtype=dtype)
        return self

    def _embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Patches with CLS and positions; those are interpolated as mPLUG's own code does, bilinearly."""
        embeddings: Any = self._clip.embeddings
        patches = embeddings.patch_embedding(pixels)
        table, sides = embeddings.position_embedding.weight, patches.shape[-2:]
        native = math.isqrt(len(table) - 1)
        grid = table[1:].T.reshape(1, -1, native, native)
        if sides != (native, native):
            grid = F.interpolate(grid.float(), size=sides, mode="bilinear", align_corners=False).to(table.dtype)
        cls = (embeddings.class_embedding + table[0]).expand(len(pixels), 1, -1)
        return torch.cat([cls, (patches + grid).flatten(2).transpose(1, 2)], 1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `VisionTower`."""
        tokens = self._clip.pre_layrnorm(self._embed(pixels))
        tokens = self._clip.encoder(inputs_embeds=tokens).last_hidden_state
        return self._narrow(self._clip.post_layernorm(tokens))


def load(config: BackboneConfig, checkpoint: Checkpoint, device: torch.device) -> Backbone:
    """Load a converted checkpoint for inference.

    Raises:
        CheckpointError: weights missing or of another shape than config.json says.
    """
    model, tokenizer = load_pretrained(MplugForImageTextRetrieval, checkpoint.folder)
    return FusionModel(MplugVision(model), model, tokenizer, config, device)
