"""What the models that transformers does not have are made of, for their weights to be kept in."""

from __future__ import annotations

from typing import Any, no_type_check

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.blip.modeling_blip_text import BlipTextModel


@no_type_check  # transformers makes the initialiser, and calls it with more than it declares
class FusionConfig(PreTrainedConfig):
    """Sizes of an image encoder and of a text encoder whose last `cross_attention_layers` see the image."""

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    cross_attention_layers: int = 6


class FusionWeights(PreTrainedModel):
    """Text encoder and match head; a subclass adds its image encoder. The forward pass is `FusionModel`'s."""

    config: FusionConfig

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        text: Any = config.text_config
        self.text_encoder = BlipTextModel(text, add_pooling_layer=False)
        for layer in self.text_encoder.encoder.layer[: text.num_hidden_layers - config.cross_attention_layers]:
            del layer.crossattention
        self.itm_head = nn.Linear(text.hidden_size, 2)
