"""BLIP image-text matching (`BlipForImageTextRetrieval`); its facts are in blip.yaml."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch.nn.functional import normalize
from transformers import BlipForImageTextRetrieval

from pnp_core.errors import CaptionTooLongError, CheckpointError
from pnp_core.methods.pnp.backbones.base import Backbone
from pnp_core.methods.pnp.backbones.checkpoint import Checkpoint
from pnp_core.methods.pnp.backbones.fusion import BlipVision, FusionModel
from pnp_core.methods.pnp.backbones.loading import load_pretrained
from pnp_core.methods.pnp.config import BackboneConfig

TEXTS = 64
"""Captions that are read in one pass."""
# BLIP's tokenizer is bert-base-uncased plus [DEC] and [ENC]; hub tokenizers lack the two.
_BERT_VOCABULARY, _BLIP_ENC = 30522, 30523


VISION_EPS = 1e-6
"""All BLIPs were trained with it; a config.json made with transformers' default says 1e-5."""


class BlipModel(FusionModel):
    """With the heads that image and text are compared by in training (ITC); a `Contrastive`."""

    image_head: torch.nn.Module
    text_head: torch.nn.Module

    @torch.no_grad()
    def image_features(self, image_tokens: Float[torch.Tensor, "B P1 D"]) -> Float[torch.Tensor, "B E"]:
        """See `Contrastive`."""
        return normalize(self.image_head(image_tokens[:, 0]), dim=-1)

    @torch.no_grad()
    def text_features(self, texts: list[str]) -> Float[torch.Tensor, "N E"]:
        """See `Contrastive`. Captions begin with [CLS] here."""
        return torch.cat([self._features(texts[at : at + TEXTS]) for at in range(0, len(texts), TEXTS)])

    def _features(self, texts: list[str]) -> torch.Tensor:
        encoded = self._tokenizer(texts, padding=True, return_tensors="pt")
        if (longest := encoded["input_ids"].shape[1]) > self.max_tokens:
            raise CaptionTooLongError(f"a caption has {longest} tokens, the text encoder takes {self.max_tokens}")
        hidden = self.read_alone(encoded["input_ids"], encoded["attention_mask"].bool())
        return normalize(self.text_head(hidden), dim=-1)


def load(config: BackboneConfig, checkpoint: Checkpoint, device: torch.device) -> Backbone:
    """Load a checkpoint for inference. Captions begin with [ENC], which transformers leaves to the caller.

    Raises:
        CheckpointError: weights missing or of another shape than config.json says; no [ENC].
    """
    model, tokenizer = load_pretrained(BlipForImageTextRetrieval, checkpoint.folder)
    for module in model.vision_model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = VISION_EPS
    first = _enc_token(tokenizer, model.config.text_config.vocab_size)
    loaded = BlipModel(BlipVision(model.vision_model), model, tokenizer, config, device, first)
    loaded.image_head, loaded.text_head = model.vision_proj.to(device), model.text_proj.to(device)
    return loaded


def _enc_token(tokenizer: Any, vocabulary: int) -> int:
    known = tokenizer.get_vocab().get("[ENC]")
    if known is not None:
        return known
    if len(tokenizer) == _BERT_VOCABULARY and vocabulary > _BLIP_ENC:
        return _BLIP_ENC
    raise CheckpointError("the checkpoint's tokenizer has no [ENC] token and is not BLIP's bert-base-uncased")
