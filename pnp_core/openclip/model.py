"""CLIP through open_clip: by name and pretrained tag, or from local files."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import open_clip
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from PIL.Image import Resampling
from torch.nn.functional import normalize

from pnp_core.bundled import PACKAGE, TINY, TINY_VIT
from pnp_core.errors import CheckpointError, UnknownNameError, UsageError
from pnp_core.finite import check_weights
from pnp_core.openclip.config import LOCAL_DIR, ClipWeights, View
from pnp_core.openclip.prompts import Prompts, Tower, prompted_texts, prompts_digest, read_prompts, require_tower
from pnp_core.openclip.vit import ClipVit, Dtype

_BUNDLED = {TINY: PACKAGE / "_tiny_clip", TINY_VIT: PACKAGE / "_tiny_vit_clip"}
_TOKENIZER = (".json", ".txt", ".model", ".vocab", ".spm")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
NO_PROMPTS = Prompts()
_SHORTEST = 3
"""Places of the shortest caption: its start, a word, its end."""


def clip_revision(config: ClipWeights) -> str:
    """What names the weights in fingerprints: the tag, or a digest of local files; and the digest of prompts.

    Raises:
        CheckpointError: a folder or file does not exist, or the prompts are none.
        UnknownNameError: open_clip has no such model or tag.
        UsageError: the prompts do not fit the model.
    """
    weights = _weights_revision(config)
    if config.prompts is None:
        return weights
    check_prompts(config, read_prompts(config.prompts))
    return f"{weights}+prompts:{prompts_digest(config.prompts)}"


def _weights_revision(config: ClipWeights) -> str:
    model = _name(config)
    if model.startswith(LOCAL_DIR):
        folder = Path(model.removeprefix(LOCAL_DIR)).expanduser()
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


def check_prompts(config: ClipWeights, prompts: Prompts) -> None:
    """Find out whether prompts fit a CLIP, without loading it.

    Raises:
        CheckpointError: the configuration in a local folder is not one of open_clip.
        UsageError: they are for another CLIP, another number of layers, another width, or leave no place for captions.
    """
    named = _base_name(config)
    # A file of weights does not say its tag.
    if prompts.base not in (named, named.partition(":")[0]) and prompts.base.partition(":")[0] != named:
        raise UsageError(f"prompts '{config.prompts}' are for CLIP {prompts.base}, not for {named}")
    try:
        own = _model_config(config)
        visual, text = _visual_tower(own["vision_cfg"]), _text_tower(own["text_cfg"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"CLIP model '{config.model}' does not say what its towers are: {error}") from error
    require_tower(prompts.visual, visual, "visual", config.model)
    require_tower(prompts.text, text, "text", config.model)


def _base_name(config: ClipWeights) -> str:
    """What prompts call the CLIP; the tag behind it where its weights have one."""
    if config.model.startswith(LOCAL_DIR):
        return Path(config.model.removeprefix(LOCAL_DIR)).expanduser().resolve().name
    tagged = config.pretrained in open_clip.list_pretrained_tags_by_model(config.model)
    return f"{config.model}:{config.pretrained}" if tagged else config.model


def _visual_tower(vision: dict[str, Any]) -> Tower:
    if other := _other_than_vit(vision):
        return Tower(other=other)
    known = open_clip.CLIPVisionCfg(**vision)
    assert isinstance(known.layers, int)
    return Tower(known.layers, known.width)


def _text_tower(text: dict[str, Any]) -> Tower:
    if name := text.get("hf_model_name"):
        return Tower(other=f"{name} for a text tower")
    known = open_clip.CLIPTextCfg(**text)
    return Tower(known.layers, known.width, most=known.context_length - _SHORTEST)


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
        other = _other_than_vit(vision)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"CLIP model '{config.model}' does not say what it sees with: {error}") from error
    if other:
        raise UsageError(f"CLIP {config.model} sees with {other}; this method needs open_clip's own ViT, as ViT-B-16")


def _other_than_vit(vision: dict[str, Any]) -> str | None:
    """What a vision tower is that is no ViT of open_clip's own, for people."""
    if "timm_model_name" in vision:
        return "a tower of timm"
    by_stage = isinstance(vision["layers"], list | tuple)  # as convolutional towers count them
    return "a ResNet" if by_stage else None


def _vision(config: ClipWeights) -> dict[str, Any]:
    """What open_clip's configuration of a model says of its vision tower."""
    return _model_config(config)["vision_cfg"]


def _model_config(config: ClipWeights) -> dict[str, Any]:
    model = _name(config)
    if model.startswith(LOCAL_DIR):
        file = Path(model.removeprefix(LOCAL_DIR)).expanduser() / "open_clip_config.json"
        return json.loads(file.read_text(encoding="utf-8"))["model_cfg"]
    return open_clip.get_model_config(model) or {}


def _name(config: ClipWeights) -> str:
    """What open_clip calls the model."""
    return f"{LOCAL_DIR}{_BUNDLED[config.model]}" if config.model in _BUNDLED else config.model


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

    def __init__(
        self,
        model: Any,
        preprocess: Any,
        tokenizer: Any,
        device: torch.device,
        prompts: Prompts = NO_PROMPTS,
        name: str = "CLIP",
    ) -> None:
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
        self._prompts = prompts
        self._prompted = self.vit(name) if prompts.visual else None

    def with_prompts(self, prompts: Prompts, name: str) -> ClipModel:
        """The same weights with prompts; they are not copied.

        Args:
            name: of the model, for people.

        Raises:
            UsageError: the prompts do not fit it.
        """
        return ClipModel(self._model, self._preprocess, self._tokenizer, self.device, prompts, name)

    def vit(self, name: str, dtype: Dtype = "float32") -> ClipVit:
        """The vision tower with its prompts, open at its last block; see `ClipVit`.

        Raises:
            UsageError: it is no such ViT, or the prompts do not fit it.
        """
        return ClipVit(self._model.visual, name, dtype, self._prompts.visual)

    def pixels(self, image: np.ndarray, view: View = "centre") -> Float[torch.Tensor, "3 h w"]:
        """A picture (H, W, 3) uint8 as the model wants it, a square of it or squashed to one."""
        height, width = image.shape[:2]
        if view == "whole" and height != width:
            squashed = Image.fromarray(image).resize((self.size, self.size), Resampling.BICUBIC)
            return self._preprocess(squashed)
        side = min(height, width)
        # open_clip enlarges first and crops afterwards, which takes gigabytes for very thin pictures.
        top, left = (height - side) // 2, (width - side) // 2
        return self._preprocess(Image.fromarray(image[top : top + side, left : left + side]))

    @torch.no_grad()
    def encode_pixels(self, pixels: Float[torch.Tensor, "B 3 h w"]) -> Float[torch.Tensor, "B D"]:
        """Picture features."""
        return self._encode(pixels.to(self.device))

    @torch.no_grad()
    def encode_regions(
        self, images: UInt8[torch.Tensor, "B s s 3"], regions: Bool[torch.Tensor, "B s s"]
    ) -> Float[torch.Tensor, "B D"]:
        """Features of pictures (RGB, 0..255, side `size`) cut to a region; zero in normalised space elsewhere."""
        images, regions = images.to(self.device), regions.to(self.device)
        pixels = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        return self._encode(pixels * regions[:, None])

    def _encode(self, pixels: Float[torch.Tensor, "B 3 h w"]) -> Float[torch.Tensor, "B D"]:
        if self._prompted is None:
            return self._model.encode_image(pixels, normalize=True)
        return normalize(self._prompted.features(pixels), dim=-1)

    @torch.no_grad()
    def encode_texts(self, texts: list[str]) -> Float[torch.Tensor, "N D"]:
        """Text features.

        Raises:
            CaptionTooLongError: a text does not fit beside text prompts.
        """
        return torch.cat([self._encode_texts(texts[i : i + 64]) for i in range(0, len(texts), 64)])

    def _encode_texts(self, texts: list[str]) -> Float[torch.Tensor, "N D"]:
        ids = self._tokenizer(texts).to(self.device)
        if not self._prompts.text:
            return self._model.encode_text(ids, normalize=True)
        return normalize(prompted_texts(self._model, ids, texts, self._prompts.text), dim=-1)


def load_clip(config: ClipWeights, device: str) -> ClipModel:
    """Load a CLIP; a process keeps the weights of the last ones (several GPUs, or candidates and reward).

    Weights are never unpickled as code.

    Raises:
        CheckpointError: the weights are not at hand, not finite or do not fit; the prompts are none.
        UsageError: the prompts do not fit.
    """
    weights = ClipWeights(model=config.model, pretrained=config.pretrained)
    base = load_weights(weights, _weights_revision(weights), device)
    if config.prompts is None:
        return base
    prompts = read_prompts(config.prompts)  # each time: what is learned changes more often than weights
    check_prompts(config, prompts)
    return base.with_prompts(prompts, config.model)


@contextmanager
def _told_once() -> Iterator[None]:
    """What loading raises is not logged before: by open_clip in the root's name, by the hub's client five times."""

    def no_error(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR

    root, hub = logging.getLogger(), logging.getLogger("huggingface_hub")
    before = hub.level
    root.addFilter(no_error)  # of what is logged there itself, not below
    hub.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.removeFilter(no_error)
        hub.setLevel(before)


@lru_cache(maxsize=4)
def load_weights(config: ClipWeights, revision: str, device: str) -> ClipModel:
    """A CLIP without prompts, see `load_clip`.

    Args:
        revision: of the weights: others in the same place are not those that were loaded before.
    """
    name = _name(config)
    pretrained = None if name.startswith(LOCAL_DIR) else config.pretrained  # such folders hold their weights
    try:
        with _told_once():
            loaded: Any = open_clip.create_model_from_pretrained(
                name, pretrained=pretrained, weights_only=True, force_quick_gelu=_quick_gelu(name, pretrained)
            )
            model, preprocess = loaded
            tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip raises nearly any type for missing and misfit weights
        message = shorten(str(error), 300, placeholder=" ...")
        quick = _quick_gelu(name, pretrained) and f"{config.model}-quickgelu" in open_clip.list_models()
        its = f" of {config.model}-quickgelu" if quick else ""  # of a file nothing says how it was trained
        raise CheckpointError(
            f"cannot load CLIP {config.model} ({config.pretrained}): {message}; without a network give a "
            f"weights file{its} in place of {config.pretrained}, or local-dir:FOLDER in place of {config.model}"
        ) from error
    check_weights(model, f"CLIP {config.model}" + (f" ({pretrained})" if pretrained else ""))
    return ClipModel(model, preprocess, tokenizer, torch.device(device))
