"""CLIPs of open_clip with random weights and a ViT, as small as can be, as files of a user's own are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

from training.tiny_blip import build_tokenizer

VISION: dict[str, Any] = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 3, "head_width": 8}


def random_clip(seed: int = 0, **vision: Any) -> CLIP:
    """Weights so large that attention is not the same everywhere."""
    torch.manual_seed(seed)
    model = CLIP(**_configuration(vision)).eval().requires_grad_(False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.25)
            elif "bias" in name:
                parameter.normal_(std=0.1)
        model.logit_scale.fill_(3.0)
    return model


def save_random_clip(folder: Path, seed: int = 0, **vision: Any) -> Path:
    """A folder for `local-dir:`; the words are those of the drawn classes."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": _configuration(vision), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(
        {name: value.contiguous() for name, value in random_clip(seed, **vision).state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    build_tokenizer().save_pretrained(folder)
    return folder


def _configuration(vision: dict[str, Any]) -> dict[str, Any]:
    tokenizer = build_tokenizer()
    return {
        "embed_dim": 16,
        "vision_cfg": {**VISION, **vision},
        "text_cfg": {
            "context_length": 16,
            "vocab_size": len(tokenizer),
            "hf_tokenizer_name": "tokenizer",
            "width": 16,
            "heads": 2,
            "layers": 2,
            "pool_type": "eos",
            "eos_id": tokenizer.sep_token_id,
            "pad_id": tokenizer.pad_token_id,
        },
    }
