"""CLIP through open_clip: by name and pretrained tag, or from local files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from pnp_core.bundled import PACKAGE, TINY, TINY_VIT
from pnp_core.errors import CheckpointError, UnknownNameError, UsageError
from pnp_core.finite import check_weights
from pnp_core.openclip.config import ClipWeights
from pnp_core.openclip.vit import ClipVit, Dtype

_LOCAL = "local-dir:"
_BUNDLED = {TINY: PACKAGE / "_tiny_clip", TINY_VIT: PACKAGE / "_tiny_vit_clip"}
_TOKENIZER = (".json", ".txt", ".model", ".vocab", ".spm")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


def clip_revision(config: ClipWeights) -> str:
    """What names the weights in fingerprints: the tag, or a digest of local files.

    Raises:
        CheckpointError: the folder or file does not exist.
        UnknownNameError: open_clip has no such model or tag.
    """
    model = _name(config)
    if model.startswith(_LOCAL):
        folder = Path(model.removeprefix(_LOCAL)).expanduser()
        if not (folder / "open_clip_config.json").is_file():
            raise CheckpointError(f"no CLIP model in '{folder}': open_clip_config.json is missing")
        files = sorted(f for f in folder.iterdir() if f.suffix in (*_WEIGHTS, *_TOKENIZER))
        return _digest(files)
    if config.model not in open_clip.list_models():
        raise UnknownNameError("CLIP model", config.model, open_clip.list_models())
    tags = open_clip.list_pretrained_tags_by_model(config.model)
    if config.pretrained in tags:
        return f"{config.model}:{config.pretrained}{':quickgelu' if _quick_gelu(model, config.pretrained) else ''}"
    if config.pretrained is None or not Path(config.pretrained).expanduser().is_file():
        raise CheckpointError(
            f"CLIP weights '{config.pretrained}' are neither a file nor a tag of {config.model}; "
            f"tags: {', '.join(tags)}"
        )
    return f"{config.model}:{_digest([Path(config.pretrained).expanduser()])}"


def clip_image_size(config: ClipWeights) -> int:
    """Side of the model's input in pixels, without loading it.

    Raises:
        CheckpointError: the configuration in a local folder is not one of open_clip.
    """
    try:
        size = _vision(config)["image_size"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"CLIP model '{config.model}' does not say its image size: {error}") from error
    return int(size[0] if isinstance(size, list | tuple) else size)


def require_vit(config: ClipWeights) -> None:
    """Refuse a model that sees with no ViT of open_clip's own, without loading it.

    Raises:
        CheckpointError: the configuration in a local folder is not one of open_clip.
        UsageError: it sees with something else.
    """
    try:
        vision = _vision(config)
        other = "a tower of timm" if "timm_model_name" in vision else "a ResNet" if _stages(vision) else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"CLIP model '{config.model}' does not say what it sees with: {error}") from error
    if other:
        raise UsageError(f"CLIP {config.model} sees with {other}; this method needs open_clip's own ViT, as ViT-B-16")


def _stages(vision: dict[str, Any]) -> bool:
    """Whether layers are counted by stage, as convolutional towers have them."""
    return isinstance(vision["layers"], list | tuple)


def _vision(config: ClipWeights) -> dict[str, Any]:
    """What open_clip's configuration of a model says of its vision tower."""
    model = _name(config)
    if model.startswith(_LOCAL):
        file = Path(model.removeprefix(_LOCAL)).expanduser() / "open_clip_config.json"
        return json.loads(file.read_text(encoding="utf-8"))["model_cfg"]["vision_cfg"]
    return (open_clip.get_model_config(model) or {})["vision_cfg"]


def _name(config: ClipWeights) -> str:
    """What open_clip calls the model."""
    return f"{_LOCAL}{_BUNDLED[config.model]}" if config.model in _BUNDLED else config.model


def _quick_gelu(model: str, tag: str | None) -> bool:
    """Whether a tag's weights want the activation that OpenAI trained with; open_clip only warns.

    >>> _quick_gelu("ViT-L-14-336", "openai"), _quick_gelu("ViT-B-16", "laion2b_s34b_b88k")
    (True, False)
    """
    if tag is None or tag not in open_clip.list_pretrained_tags_by_model(model):
        return False
    return bool(open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False))


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(path.suffix.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


class ClipModel:
    """A frozen CLIP; features are normalised to length 1.

    Attributes:
        mean, std: of its input's channels (3, 1, 1), for values in [0, 1].
    """

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, device: torch.device) -> None:
        self._model = model.to(device).eval().requires_grad_(False)
        self._preprocess = preprocess
        self._tokenizer = tokenizer
        self.device = device
        self.scale = float(model.logit_scale.exp())
        size = model.visual.image_size
        self.size = int(size[0] if isinstance(size, tuple | list) else size)
        self.mean, self.std = (
            torch.tensor(getattr(model.visual, name) or default, device=device).view(3, 1, 1)
            for name, default in (
                ("image_mean", open_clip.OPENAI_DATASET_MEAN),
                ("image_std", open_clip.OPENAI_DATASET_STD),
            )
        )

    def vit(self, name: str, dtype: Dtype = "float32", prompts: Sequence[torch.Tensor] = ()) -> ClipVit:
        """The vision tower, open at its last block; see `ClipVit`.

        Raises:
            UsageError: it is no such ViT, or the prompts do not fit it.
        """
        return ClipVit(self._model.visual, name, dtype, prompts)

    def pixels(self, image: np.ndarray) -> Float[torch.Tensor, "3 h w"]:
        """A picture (H, W, 3) uint8 as the model wants it: its centre, where it is no square."""
        height, width = image.shape[:2]
        side = min(height, width)
        # open_clip enlarges first and crops afterwards, which takes gigabytes for very thin pictures.
        top, left = (height - side) // 2, (width - side) // 2
        return self._preprocess(Image.fromarray(image[top : top + side, left : left + side]))

    @torch.no_grad()
    def encode_pixels(self, pixels: Float[torch.Tensor, "B 3 h w"]) -> Float[torch.Tensor, "B D"]:
        """Picture features."""
        return self._model.encode_image(pixels.to(self.device), normalize=True)

    @torch.no_grad()
    def encode_regions(
        self, images: UInt8[torch.Tensor, "B s s 3"], regions: Bool[torch.Tensor, "B s s"]
    ) -> Float[torch.Tensor, "B D"]:
        """Features of pictures (RGB, 0..255, side `size`) cut to a region; zero in normalised space elsewhere."""
        images, regions = images.to(self.device), regions.to(self.device)
        pixels = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        return self._model.encode_image(pixels * regions[:, None], normalize=True)

    @torch.no_grad()
    def encode_texts(self, texts: list[str]) -> Float[torch.Tensor, "N D"]:
        """Text features."""
        parts = [self._tokenizer(texts[i : i + 64]).to(self.device) for i in range(0, len(texts), 64)]
        return torch.cat([self._model.encode_text(part, normalize=True) for part in parts])


@lru_cache(maxsize=4)
def load_clip(config: ClipWeights, device: str) -> ClipModel:
    """Load a CLIP; a process keeps the last ones (several GPUs, or candidates and reward).

    Weights are never unpickled as code.

    Raises:
        CheckpointError: the weights are not at hand, not finite or do not fit.
    """
    name = _name(config)
    pretrained = None if name.startswith(_LOCAL) else config.pretrained  # such folders hold their weights
    try:
        loaded: Any = open_clip.create_model_from_pretrained(
            name, pretrained=pretrained, weights_only=True, force_quick_gelu=_quick_gelu(name, pretrained)
        )
        model, preprocess = loaded
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip raises nearly any type for missing and misfit weights
        message = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"cannot load CLIP {config.model} ({config.pretrained}): {message}; without a network give a "
            f"weights file in place of {config.pretrained}, or local-dir:FOLDER in place of {config.model}"
        ) from error
    check_weights(model, f"CLIP {config.model}" + (f" ({pretrained})" if pretrained else ""))
    return ClipModel(model, preprocess, tokenizer, torch.device(device))
