"""BLIP image-text matching (`BlipForImageTextRetrieval`); its facts are in blip.yaml."""

from __future__ import annotations

from typing import Any

import torch
from transformers import BlipForImageTextRetrieval

from pnp_core.errors import CheckpointError
from pnp_core.methods.pnp.backbones.base import Backbone
from pnp_core.methods.pnp.backbones.checkpoint import Checkpoint
from pnp_core.methods.pnp.backbones.fusion import BlipVision, FusionModel
from pnp_core.methods.pnp.backbones.loading import load_pretrained
from pnp_core.methods.pnp.config import BackboneConfig

# BLIP's tokenizer is bert-base-uncased plus [DEC] and [ENC]; hub tokenizers lack the two.
_BERT_VOCABULARY, _BLIP_ENC = 30522, 30523


VISION_EPS = 1e-6
"""All BLIPs were trained with it; a config.json made with transformers' default says 1e-5."""


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
    return FusionModel(BlipVision(model.vision_model), model, tokenizer, config, device, first)


def _enc_token(tokenizer: Any, vocabulary: int) -> int:
    known = tokenizer.get_vocab().get("[ENC]")
    if known is not None:
        return known
    if len(tokenizer) == _BERT_VOCABULARY and vocabulary > _BLIP_ENC:
        return _BLIP_ENC
    raise CheckpointError("the checkpoint's tokenizer has no [ENC] token and is not BLIP's bert-base-uncased")
