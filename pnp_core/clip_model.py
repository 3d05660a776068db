"""CLIP through open_clip: by name and pretrained tag, or from local files."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from jaxtyping import Float
from PIL import Image

from pnp_core.config import ClipConfig
from pnp_core.errors import CheckpointError, UnknownNameError

_LOCAL = "local-dir:"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


def clip_revision(config: ClipConfig) -> str:
    """What names the weights in fingerprints: the tag, or a digest of local files.

    Raises:
        CheckpointError: the folder or file does not exist.
        UnknownNameError: open_clip has no such model or tag.
    """
    if config.model.startswith(_LOCAL):
        folder = Path(config.model.removeprefix(_LOCAL)).expanduser()
        if not (folder / "open_clip_config.json").is_file():
            raise CheckpointError(f"no CLIP model in '{folder}': open_clip_config.json is missing")
        files = sorted(f for f in folder.iterdir() if f.suffix in (*_WEIGHTS, ".json", ".txt"))
        return _digest(files)
    if config.model not in open_clip.list_models():
        raise UnknownNameError("CLIP model", config.model, open_clip.list_models())
    tags = open_clip.list_pretrained_tags_by_model(config.model)
    if config.pretrained in tags:
        return f"{config.model}:{config.pretrained}"
    if config.pretrained is None or not Path(config.pretrained).expanduser().is_file():
        raise CheckpointError(
            f"CLIP weights '{config.pretrained}' are neither a file nor a tag of {config.model}; "
            f"tags: {', '.join(tags)}"
        )
    return f"{config.model}:{_digest([Path(config.pretrained).expanduser()])}"


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


class ClipModel:
    """A frozen CLIP; features are normalised to length 1."""

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, device: torch.device) -> None:
        self._model = model.to(device).eval().requires_grad_(False)
        self._preprocess = preprocess
        self._tokenizer = tokenizer
        self.device = device
        self.scale = float(model.logit_scale.exp())

    def pixels(self, picture: np.ndarray) -> Float[torch.Tensor, "3 h w"]:
        """A picture (H, W, 3) uint8 as the model wants it: its centre, where it is no square."""
        height, width = picture.shape[:2]
        side = min(height, width)
        # open_clip enlarges first and crops afterwards, which takes gigabytes for very thin pictures.
        top, left = (height - side) // 2, (width - side) // 2
        return self._preprocess(Image.fromarray(picture[top : top + side, left : left + side]))

    @torch.no_grad()
    def encode_pixels(self, pixels: Float[torch.Tensor, "B 3 h w"]) -> Float[torch.Tensor, "B D"]:
        """Picture features."""
        return self._model.encode_image(pixels.to(self.device), normalize=True)

    @torch.no_grad()
    def encode_texts(self, texts: list[str]) -> Float[torch.Tensor, "N D"]:
        """Text features."""
        parts = [self._tokenizer(texts[i : i + 64]).to(self.device) for i in range(0, len(texts), 64)]
        return torch.cat([self._model.encode_text(part, normalize=True) for part in parts])


@lru_cache(maxsize=1)
def load_clip(config: ClipConfig, device: str) -> ClipModel:
    """Load a CLIP; a process keeps the last one for the next shard. Weights are never unpickled as code.

    Raises:
        CheckpointError: the weights are not at hand or do not fit.
    """
    try:
        loaded: Any = open_clip.create_model_from_pretrained(
            config.model, pretrained=config.pretrained and str(config.pretrained), weights_only=True
        )
        model, preprocess = loaded
        tokenizer = open_clip.get_tokenizer(config.model)
    except Exception as error:  # open_clip raises nearly any type for missing and misfit weights
        message = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"cannot load CLIP {config.model} ({config.pretrained}): {message}; without a network give local "
            f"weights: candidates.clip.pretrained=FILE or candidates.clip.model=local-dir:FOLDER"
        ) from error
    return ClipModel(model, preprocess, tokenizer, torch.device(device))
