"""The tiny CLIP: its open_clip configuration, and how it is saved as a `local-dir:` folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from training.tiny_blip import build_tokenizer

IMAGE_SIZE = 96
CONTEXT = 16
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


RESNET: dict[str, Any] = {"image_size": IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 24, "head_width": 64}
"""A small ResNet with attention pooling: convolutions learn outlines from far fewer pictures than a transformer of this
size."""


def model_config(tokenizer: PreTrainedTokenizerFast, vision: dict[str, Any] = RESNET) -> dict[str, Any]:
    """A vision tower beside a two-layer text encoder."""
    return {
        "embed_dim": 128,
        "vision_cfg": vision,
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": len(tokenizer),
            "hf_tokenizer_name": "tokenizer",
            "width": 128,
            "heads": 2,
            "layers": 2,
            "pool_type": "eos",
            "eos_id": tokenizer.sep_token_id,
            "pad_id": tokenizer.pad_token_id,
        },
    }


def build_clip(seed: int, vision: dict[str, Any] = RESNET) -> CLIP:
    """Fresh weights."""
    torch.manual_seed(seed)
    return CLIP(**model_config(build_tokenizer(), vision))


def save_clip(model: CLIP, folder: Path, vision: dict[str, Any] = RESNET) -> None:
    """Write configuration, half-precision weights and tokenizer the way `local-dir:` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {"model_cfg": model_config(tokenizer, vision), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n")
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(weights, folder / "open_clip_model.safetensors")
    tokenizer.save_pretrained(folder)
