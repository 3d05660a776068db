"""Load a checkpoint folder into a transformers model, strictly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from pnp_core.errors import CheckpointError, first_line
from pnp_core.finite import check_weights
from pnp_core.methods.pnp.backbones.checkpoint import weights_files
from pnp_core.methods.pnp.config import BackboneConfig
from pnp_core.methods.pnp.prompts import EncodedText


def load_weights(kind: type[PreTrainedModel], folder: Path) -> Any:
    """The model, frozen, in float32.

    Raises:
        CheckpointError: weights missing, not finite or of another shape than config.json says.
    """
    logging.disable_progress_bar()  # the pipeline shows its own progress
    safe = weights_files(folder)[0].suffix == ".safetensors"
    with _told(folder):
        loaded: Any = kind.from_pretrained(
            folder,
            dtype=torch.float32,  # whatever precision the file has; the text side computes in it
            use_safetensors=safe,
            weights_only=True,
            local_files_only=True,
            output_loading_info=True,
        )
    model, report = loaded
    lost = sorted(name for name in report["missing_keys"] if "position_ids" not in name)
    if lost:
        raise CheckpointError(f"checkpoint '{folder}' lacks weights: {', '.join(lost[:3])} ...")
    check_weights(model, f"checkpoint '{folder}'")
    return model.requires_grad_(False).eval()


def load_pretrained(kind: type[PreTrainedModel], folder: Path) -> tuple[Any, Any]:
    """The model, as `load_weights` gives it, and its tokenizer.

    Raises:
        CheckpointError: as `load_weights`, or there is no tokenizer.
    """
    model = load_weights(kind, folder)
    with _told(folder):
        # Without the configuration it would look for one by itself, and warn of models transformers does not know.
        return model, AutoTokenizer.from_pretrained(folder, config=model.config, local_files_only=True, use_fast=True)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What transformers says of a checkpoint, in one line."""
    try:
        yield
    except Exception as error:  # transformers wraps nearly anything: shapes, JSON, tokenizers
        raise CheckpointError(f"checkpoint '{folder}' cannot be loaded: {first_line(error)}") from error


def encode(tokenizer: Any, text: str, first: int | None = None) -> EncodedText:
    """A caption's tokens with the characters they stand for; `first` takes the place of the first one."""
    encoded = tokenizer(text, return_offsets_mapping=True, truncation=False, verbose=False)
    ids = list(encoded["input_ids"])
    unknown = [i == tokenizer.unk_token_id for i in ids]
    if first is not None:
        ids[0] = first
    return EncodedText(ids, [tuple(o) for o in encoded["offset_mapping"]], unknown)


def grid_of(config: BackboneConfig, patch_size: int) -> tuple[int, int]:
    """Patches down and across.

    Raises:
        CheckpointError: they do not fill the picture.
    """
    for side in config.sides:
        if side % patch_size:
            below = max(side // patch_size, 1) * patch_size
            raise CheckpointError(
                f"image_size {side} is not a multiple of the model's patch size {patch_size}: "
                f"take {below} or {below + patch_size}"
            )
    return config.sides[0] // patch_size, config.sides[1] // patch_size
