"""BridgeTower image-text matching (`BridgeTowerForImageAndTextRetrieval`); its facts are in bridgetower.yaml.

Six cross-modal layers carry the image along with the text: each side attends to the other, so from the second
layer on image tokens depend on the caption. Before each layer a bridge adds what one of the upper uni-modal
layers made of the picture and of the caption. The weights are in transformers' modules; the forward pass is
written here for the same reasons as in `fusion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch.nn import functional as F
from transformers import BridgeTowerForImageAndTextRetrieval

from pnp_core.errors import CheckpointError
from pnp_core.methods.pnp.backbones.attention import cross_probabilities, hide_padding, read
from pnp_core.methods.pnp.backbones.base import Backbone, Match
from pnp_core.methods.pnp.backbones.checkpoint import Checkpoint
from pnp_core.methods.pnp.backbones.loading import encode, grid_of, load_pretrained
from pnp_core.methods.pnp.config import BackboneConfig
from pnp_core.methods.pnp.prompts import EncodedText


def load(config: BackboneConfig, checkpoint: Checkpoint, device: torch.device) -> Backbone:
    """Load a checkpoint for inference.

    Raises:
        CheckpointError: weights missing or of another shape than config.json says.
    """
    model, tokenizer = load_pretrained(BridgeTowerForImageAndTextRetrieval, checkpoint.folder)
    backbone = BridgeTower(model, tokenizer, config, device)
    if backbone.heads != checkpoint.heads:
        raise CheckpointError(
            f"checkpoint '{checkpoint.folder}': config.json states {checkpoint.heads} heads, its text_config makes "
            f"{backbone.heads} of the cross-modal layers"
        )
    return backbone


PAIRS_AT_ONCE = 8
"""Picture and caption pairs that are scored together: each has image tokens of its own, a third of a GB at 770 px."""


class BridgeTower:
    """A loaded model; see `Backbone`.

    Layers are the cross-modal ones, on the text side. Image tokens are (B, layers, 1 + P, D): what each bridge
    brings from the image encoder, which no caption changes.
    """

    def __init__(self, model: Any, tokenizer: Any, config: BackboneConfig, device: torch.device) -> None:
        """Put the parts in place.

        Raises:
            CheckpointError: the picture's size is no multiple of the patch size.
        """
        model.to(device)
        self._body, self._itm = model.bridgetower, model.itm_score
        vision = model.config.vision_config
        if vision.remove_last_layer or not vision.share_layernorm:
            raise CheckpointError(
                "this BridgeTower drops its last image layer or has a layer norm for each: not supported"
            )
        self._visual = self._body.vision_model.visual.to(getattr(torch, config.dtype))
        self._text = self._body.text_model
        self.patch_size = vision.patch_size
        self.grid = grid_of(config, self.patch_size)
        self.layers = model.config.num_hidden_layers
        self.heads = self._body.cross_modal_text_layers[0].crossattention.self.num_attention_heads
        # RoBERTa counts positions from the padding token's number on.
        self.max_tokens = model.config.text_config.max_position_embeddings - model.config.text_config.pad_token_id - 1
        self.device = device
        self._dtype = getattr(torch, config.dtype)
        self._tokenizer = tokenizer
        self._shared = model.config.share_cross_modal_transformer_layers

    def tokenize(self, text: str) -> EncodedText:
        """Encode a caption."""
        return encode(self._tokenizer, text)

    @torch.no_grad()
    def encode_image(self, pixels: Float[torch.Tensor, "B 3 H W"]) -> Float[torch.Tensor, "B L P1 D"]:
        """Image tokens (float32) for each bridge, CLS first; positions are interpolated (bicubic)."""
        visual, levels = self._visual, []
        hidden = visual.embeddings(pixels.to(self.device, self._dtype), interpolate_pos_encoding=True)
        hidden = visual.ln_pre(hidden).transpose(0, 1)  # the blocks have the tokens first
        blocks = visual.transformer.resblocks
        first = len(self._text.encoder.layer) - self.layers
        kind = self._body.token_type_embeddings.weight[1]
        for number, block in enumerate(blocks):
            hidden = block(hidden)
            if number >= first:
                level = visual.ln_post(hidden.transpose(0, 1)).float()
                levels.append(self._of(self._body.cross_modal_image_transform, number - first)(level) + kind)
        return torch.stack(levels, 1)

    def _of(self, modules: Any, layer: int) -> Any:
        """One of the transforms, which layers may share."""
        return modules if self._shared else modules[layer]

    @torch.no_grad()
    def _text_levels(self, ids: torch.Tensor, padding: torch.Tensor) -> list[torch.Tensor]:
        """What each bridge brings from the text encoder, (captions, T, D)."""
        hidden = self._text.embeddings(input_ids=ids)
        first, levels = len(self._text.encoder.layer) - self.layers, []
        kind = self._body.token_type_embeddings.weight[0]
        for number, layer in enumerate(self._text.encoder.layer):
            hidden = layer.feed_forward_chunk(_attend(layer.attention, hidden, hidden, padding))
            if number >= first:
                levels.append(self._of(self._body.cross_modal_text_transform, number - first)(hidden) + kind)
        return levels

    def match(
        self,
        image_tokens: Float[torch.Tensor, "B L P1 D"],
        ids: Int[torch.Tensor, "B N T"],
        mask: Bool[torch.Tensor, "B N T"],
        layers: Sequence[int],
    ) -> Match:
        """Match N captions with each picture, recording the graph from the lowest wanted layer on, see `Backbone`.

        Every caption has image tokens of its own, so time grows with N, and memory too when there is a gradient.
        """
        if layers:
            return self._match(image_tokens, ids, mask, layers)
        step = min(PAIRS_AT_ONCE, ids.shape[1])
        scored = [
            self._match(image_tokens[b : b + 1], ids[b : b + 1, n : n + step], mask[b : b + 1, n : n + step], layers)
            for b in range(len(ids))
            for n in range(0, ids.shape[1], step)
        ]
        logits = torch.cat([part.logits[0] for part in scored]).view(mask.shape[:2])
        itm = torch.cat([part.itm[0] for part in scored]).view(mask.shape[:2])
        return Match([], logits, itm)

    def _match(self, image_tokens: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, layers: Sequence[int]) -> Match:
        batch, captions, tokens = ids.shape
        lowest, last = min(layers, default=self.layers), self.layers - 1
        padding = hide_padding(mask)
        text_levels = self._text_levels(ids.flatten(0, 1), padding)
        body, text, image = self._body, None, None
        recorded: dict[int, torch.Tensor] = {}
        for number in range(self.layers):
            text_level = text_levels[number]
            image_level = image_tokens[:, number].repeat_interleave(captions, 0)
            with torch.set_grad_enabled(number >= lowest):
                text = _join(body, "text", number, text_level, text)
                image = _join(body, "image", number, image_level, image)
                layer = body.cross_modal_text_layers[number]
                hidden = _attend(layer.attention, text, text, padding)
                probabilities = cross_probabilities(layer.crossattention.self, hidden, image)
                # As all backbones give them: the captions of a picture side by side.
                probabilities = probabilities.unflatten(0, (batch, captions)).transpose(1, 2).flatten(2, 3)
                if number == lowest:
                    probabilities = probabilities.detach().requires_grad_()
                if number in layers:
                    recorded[number] = probabilities
                used = probabilities.unflatten(2, (captions, tokens)).transpose(1, 2).flatten(0, 1)
                hidden = layer.crossattention.output(read(layer.crossattention.self, used, image), hidden)
                other, text_before = body.cross_modal_image_layers[number], text
                text = layer.feed_forward_chunk(hidden)
                # Of the last layer's image tokens only CLS is looked at.
                seen = image[:, :1] if number == last else image
                hidden = _attend(other.attention, seen, image)
                image = other.feed_forward_chunk(_attend(other.crossattention, hidden, text_before, padding))
        with torch.set_grad_enabled(bool(layers)):
            cls = (body.cross_modal_text_pooler(text), body.cross_modal_image_pooler(image))
            logits = self._itm(torch.cat(cls, -1)).view(batch, captions, 2)
        itm = logits.detach().softmax(-1)[..., 1]
        return Match([recorded[i] for i in layers], logits[..., 1], itm)


def _join(body: Any, side: str, number: int, level: torch.Tensor, stream: torch.Tensor | None) -> torch.Tensor:
    """What a layer gets: what its bridge brings, joined with the cross-modal stream, which begins at the first one."""
    if stream is None:
        return getattr(body, f"cross_modal_{side}_layernorm")(level)
    bridges = getattr(body, f"cross_modal_{side}_link_tower")
    bridge = bridges[number - 1] if isinstance(bridges, torch.nn.ModuleList) else bridges  # layers may share one
    return bridge(level, stream, None)


def _attend(attention: Any, x: torch.Tensor, context: torch.Tensor, padding: torch.Tensor | None = None) -> Any:
    """A BERT attention block by the fused kernel, which stores no (tokens x tokens) matrix."""
    inner = attention.self

    def heads(values: torch.Tensor) -> torch.Tensor:
        return values.unflatten(-1, (inner.num_attention_heads, -1)).transpose(1, 2)

    query, key, value = heads(inner.query(x)), heads(inner.key(context)), heads(inner.value(context))
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=padding)
    return attention.output(mixed.transpose(1, 2).flatten(2), x)
