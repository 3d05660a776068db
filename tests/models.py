"""What tests are made of: random-weight BLIP checkpoints, saved as real ones are, and samples."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import BlipConfig, BlipForImageTextRetrieval

from pnp_core.data import Sample
from training.tiny_blip import build_tokenizer

SMALL: dict[str, dict[str, Any]] = {
    "vision": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 48,
        "patch_size": 8,
        "initializer_range": 0.2,
        "layer_norm_eps": 1e-6,
    },
    "text": {
        "hidden_size": 32,
        "encoder_hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
    },
}
LARGE: dict[str, dict[str, Any]] = {
    "vision": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 16,
        "initializer_range": 0.03,
        "layer_norm_eps": 1e-6,
    },
    "text": {
        "hidden_size": 768,
        "encoder_hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 512,
        "initializer_range": 0.05,
    },
}
"""The proportions of Salesforce/blip-itm-large-flickr, at 336 pixels."""


def random_blip(size: dict[str, dict[str, Any]], seed: int = 0) -> BlipForImageTextRetrieval:
    """A BLIP with random weights, large enough that its gradients are not rounding noise."""
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    text = {
        **size["text"],
        "is_decoder": True,
        "vocab_size": len(tokenizer),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "bos_token_id": tokenizer.convert_tokens_to_ids("[DEC]"),
    }
    config = BlipConfig(image_text_hidden_size=16, vision_config=size["vision"], text_config=text)
    model = BlipForImageTextRetrieval(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "position_embedding" in name or "class_embedding" in name:
                parameter.normal_(std=size["vision"]["initializer_range"])
    return model


def save_random_blip(folder: Path, size: dict[str, dict[str, Any]] = SMALL) -> Path:
    """Write a random BLIP and its tokenizer the way checkpoints are published."""
    random_blip(size).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def sample_of(key: str) -> Sample:
    """A sample with a small picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (len(key), 0, 0)).save(buffer, format="PNG")
    return Sample(key, buffer.getvalue(), "png", f"{key}.png")
