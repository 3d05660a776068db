"""A BERT whose upper layers look at the image: what BLIP, ALBEF and mPLUG have in common.

The weights are in transformers' modules; the forward passes are written here, because salience needs the
cross-attention probabilities inside the graph and the graph to begin there (stock modules would record
everything from the pixels up). `tests/pnp_core/methods/pnp/backbones` holds both against stock or independent forwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch.nn import functional as F

from pnp_core.methods.pnp.backbones.attention import cross_probabilities, hide_padding, read
from pnp_core.methods.pnp.backbones.base import Match
from pnp_core.methods.pnp.backbones.loading import encode, grid_of
from pnp_core.methods.pnp.config import BackboneConfig
from pnp_core.methods.pnp.prompts import EncodedText

# On a CPU two matrix products beat the fused kernel (by 10% at 442 tokens), as long as the matrix is small.
PLAIN_ATTENTION_TOKENS = 1024


@runtime_checkable
class VisionTower(Protocol):
    """An image encoder."""

    patch_size: int

    def to(self, device: torch.device, dtype: torch.dtype) -> VisionTower:
        """The same elsewhere, in another precision."""
        ...

    def __call__(self, pixels: Float[torch.Tensor, "B 3 H W"]) -> Float[torch.Tensor, "B P1 D"]:
        """Image tokens, CLS first; positions are interpolated to the size of the picture as in the model's own code."""
        ...


class BlipVision:
    """The image encoder of BLIP and ALBEF: a ViT with pre-norm and one matrix for query, key and value."""

    def __init__(self, model: Any) -> None:
        self.patch_size = model.config.patch_size
        self._model = model

    def to(self, device: torch.device, dtype: torch.dtype) -> BlipVision:
        """See `VisionTower`."""
        self._model.to(device=device, dtype=dtype)
        return self

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `VisionTower`."""
        x = self._model.embeddings(pixels, interpolate_pos_encoding=True)
        for layer in self._model.encoder.layers:
            x = x + _self_attention(layer.self_attn, layer.layer_norm1(x))
            x = x + layer.mlp(layer.layer_norm2(x))
        return self._model.post_layernorm(x)


class FusionModel:
    """A loaded model of this family; see `Backbone`.

    Its layers are those with cross-attention, counted from 0. The image encoder runs in the configured
    precision, the text encoder in float32: gradients of the match logit lose too much in half precision, and
    the text side is cheap.
    """

    def __init__(
        self, vision: VisionTower, model: Any, tokenizer: Any, config: BackboneConfig, device: torch.device,
        first_token: int | None = None,
    ) -> None:  # fmt: skip
        """Put the parts in place.

        Args:
            model: with `text_encoder` and `itm_head`; layers of the former without cross-attention come first.
            first_token: what stands in place of [CLS] when image and text are matched.

        Raises:
            CheckpointError: the picture's size is no multiple of the patch size.
        """
        text = model.config.text_config
        self.patch_size = vision.patch_size
        self.grid = grid_of(config, self.patch_size)
        layers = model.text_encoder.encoder.layer
        self.layers = sum(1 for layer in layers if hasattr(layer, "crossattention"))
        self.heads = text.num_attention_heads
        self.max_tokens = text.max_position_embeddings
        self.device = device
        self._dtype = getattr(torch, config.dtype)
        self._vision = vision.to(device, self._dtype)
        self._text = model.text_encoder.to(device)
        self._itm_head = model.itm_head.to(device)
        self._tokenizer = tokenizer
        self._first_token = first_token

    def tokenize(self, text: str) -> EncodedText:
        """Encode a caption."""
        return encode(self._tokenizer, text, self._first_token)

    @torch.no_grad()
    def encode_image(self, pixels: Float[torch.Tensor, "B 3 H W"]) -> Float[torch.Tensor, "B P1 D"]:
        """Image tokens (float32) of normalised model pixels, see `VisionTower`."""
        return self._vision(pixels.to(self.device, self._dtype)).float()

    def match(
        self,
        image_tokens: Float[torch.Tensor, "B P1 D"],
        ids: Int[torch.Tensor, "B N T"],
        mask: Bool[torch.Tensor, "B N T"],
        layers: Sequence[int],
    ) -> Match:
        """Match N captions with each picture, recording the graph from the lowest wanted layer on, see `Backbone`."""
        batch, captions, tokens = ids.shape
        lowest = min(layers, default=self.layers)
        padding = hide_padding(mask)
        encoder = self._text.encoder.layer
        before = len(encoder) - self.layers
        with torch.no_grad():
            hidden = self._text.embeddings(ids.flatten(0, 1))
            for layer in encoder[:before]:
                hidden = layer.feed_forward_chunk(layer.attention(hidden, attention_mask=padding)[0])
        recorded: dict[int, torch.Tensor] = {}
        for number, layer in enumerate(encoder[before:]):
            with torch.set_grad_enabled(number >= lowest):
                hidden = layer.attention(hidden, attention_mask=padding)[0]
                # All captions of a picture form one long query: keys and values are computed once.
                queries = hidden.view(batch, captions * tokens, -1)
                cross = layer.crossattention
                probabilities = cross_probabilities(cross.self, queries, image_tokens)
                if number == lowest:
                    probabilities = probabilities.detach().requires_grad_()
                if number in layers:
                    recorded[number] = probabilities
                hidden = cross.output(read(cross.self, probabilities, image_tokens), queries)
                hidden = layer.feed_forward_chunk(hidden.view(batch * captions, tokens, -1))
        logits = self._itm_head(hidden[:, 0]).view(batch, captions, 2)
        itm = logits.detach().softmax(-1)[..., 1]
        return Match([recorded[i] for i in layers], logits[..., 1], itm)

    @torch.no_grad()
    def read_alone(self, ids: Int[torch.Tensor, "N T"], mask: Bool[torch.Tensor, "N T"]) -> Float[torch.Tensor, "N D"]:
        """What the text encoder makes of the first token of captions that it reads without an image."""
        hidden, padding = self._text.embeddings(ids.to(self.device)), hide_padding(mask.to(self.device))
        for layer in self._text.encoder.layer:
            hidden = layer.feed_forward_chunk(layer.attention(hidden, attention_mask=padding)[0])
        return hidden[:, 0]


def _self_attention(attention: Any, x: torch.Tensor) -> torch.Tensor:
    """The vision encoder's self-attention; for many tokens without storing the (tokens x tokens) matrix."""
    batch, tokens, width = x.shape
    q, k, v = attention.qkv(x).view(batch, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    if x.device.type == "cpu" and tokens <= PLAIN_ATTENTION_TOKENS:
        mixed = (q @ k.transpose(-1, -2) * attention.scale).softmax(-1) @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, scale=attention.scale)
    return attention.projection(mixed.transpose(1, 2).reshape(batch, tokens, width))
