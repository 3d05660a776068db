"""Load a checkpoint folder into a transformers model, strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from pnp_core.backbones.checkpoint import SAFETENSORS
from pnp_core.config import BackboneConfig
from pnp_core.errors import CheckpointError


def load_pretrained(kind: type[PreTrainedModel], folder: Path) -> tuple[Any, Any]:
    """The model, frozen, in float32, and its tokenizer.

    Raises:
        CheckpointError: weights missing or of another shape than config.json says; no tokenizer.
    """
    logging.disable_progress_bar()  # the pipeline shows its own progress
    safe = (folder / SAFETENSORS).is_file()
    try:
        loaded: Any = kind.from_pretrained(
            folder,
            dtype=torch.float32,  # whatever precision the file has; the text side computes in it
            use_safetensors=safe,
            weights_only=True,
            local_files_only=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
    except Exception as error:  # transformers wraps nearly anything: shapes, JSON, tokenizers
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"checkpoint '{folder}' cannot be loaded: {reason}") from error
    model, report = loaded
    lost = sorted(name for name in report["missing_keys"] if "position_ids" not in name)
    if lost:
        raise CheckpointError(f"checkpoint '{folder}' lacks weights: {', '.join(lost[:3])} ...")
    return model.requires_grad_(False).eval(), tokenizer


def grid_of(config: BackboneConfig, patch_size: int) -> tuple[int, int]:
    """Patches down and across.

    Raises:
        CheckpointError: they do not fill the picture.
    """
    for side in config.sides:
        if side % patch_size:
            raise CheckpointError(f"image_size {side} is not a multiple of the model's patch size {patch_size}")
    return config.sides[0] // patch_size, config.sides[1] // patch_size
