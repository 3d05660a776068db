"""SimZSS's two towers: pictures to patches, texts to features of the same space."""

from __future__ import annotations

from typing import Literal

import open_clip
import torch
from jaxtyping import Float
from open_clip.transformer import TextTransformer
from pydantic import Field
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn
from torch.nn import functional as F

from pnp_core.frozen import Config
from pnp_core.methods.simzss.config import PATCH

LAYERS = 12
"""Of DINOv2 (S/14 and B/14) and of the text tower, in all releases."""
HEAD = 64
"""Channels of an attention head, in both towers; it leaves no trace in weights."""
REGISTERS = 4
WORDS, CONTEXT = 49408, 77
"""CLIP's vocabulary, and the tokens that a text can have."""


class Sizes(Config):
    """What of a checkpoint's make differs between releases; its config.json."""

    model_type: Literal["simzss"] = "simzss"
    width: int = Field(ge=HEAD, multiple_of=HEAD)
    """Channels of a patch, and of what texts end in."""
    grid: int = Field(ge=1)
    """Patches along a side that position embeddings are of."""
    text_width: int = Field(ge=HEAD, multiple_of=HEAD)
    """Channels of the text tower."""
    denoiser: bool
    """Whether a denoising block comes after DINOv2."""


class Towers(nn.Module):
    """All weights that are used, with the authors' names of tensors: see `weights`.

    DINOv2 with registers and the denoising block are timm's, the text tower is open_clip's. Everything is made with
    whatever torch fills it with; the weights are loaded over it.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.vit = VisionTransformer(
            img_size=sizes.grid * PATCH, patch_size=PATCH, embed_dim=width, depth=LAYERS, num_heads=width // HEAD,
            init_values=1e-5, reg_tokens=REGISTERS, no_embed_class=True, num_classes=0, global_pool="token",
            dynamic_img_size=True, weight_init="skip",
        )  # fmt: skip
        self.pos_embed = nn.Parameter(torch.empty(1, sizes.grid**2, width)) if sizes.denoiser else None
        self.denoiser = Block(width, width // HEAD, qkv_bias=True) if sizes.denoiser else None
        self.text = TextTransformer(
            context_length=CONTEXT, vocab_size=WORDS, width=sizes.text_width, heads=sizes.text_width // HEAD,
            layers=LAYERS, output_dim=width,
        )  # fmt: skip

    def patches(self, pixels: Float[torch.Tensor, "B 3 h w"]) -> Float[torch.Tensor, "B P D"]:
        """Patches row by row after DINOv2's final norm and the denoising block; CLS and registers are dropped.

        Args:
            pixels: normalised as CLIP's, sides multiples of 14.
        """
        patches = self.vit.forward_features(pixels)[:, self.vit.num_prefix_tokens :]
        if self.denoiser is None or self.pos_embed is None:
            return patches
        grid = [side // PATCH for side in pixels.shape[2:]]
        return self.denoiser(patches + resample_abs_pos_embed(self.pos_embed, grid, num_prefix_tokens=0))


class SimzssModel:
    """The towers, frozen and on a device.

    Args:
        dtype: precision of the image encoder; texts are read once, in float32.
    """

    def __init__(self, towers: Towers, device: torch.device, dtype: str = "float32") -> None:
        self.device = device
        towers = towers.to(device).eval().requires_grad_(False)
        self._text = towers.text
        del towers.text
        self._dtype = getattr(torch, dtype)
        self._towers = towers.to(self._dtype)
        self._tokenize = open_clip.SimpleTokenizer(context_length=CONTEXT)
        self._mean, self._std = (
            torch.tensor(values, device=device).view(3, 1, 1)
            for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
        )

    @torch.no_grad()
    def encode_pixels(self, images: Float[torch.Tensor, "B 3 h w"]) -> Float[torch.Tensor, "B gh gw D"]:
        """Patches of length 1, float32.

        Args:
            images: RGB in [0, 1], sides multiples of 14. They are normalised with CLIP's mean and deviation, not
                DINOv2's, as the authors train.
        """
        pixels = ((images.to(self.device) - self._mean) / self._std).to(self._dtype)
        grid = images.shape[2] // PATCH, images.shape[3] // PATCH
        return F.normalize(self._towers.patches(pixels).float(), dim=-1).unflatten(1, grid)

    @torch.no_grad()
    def encode_texts(self, texts: list[str]) -> Float[torch.Tensor, "N D"]:
        """Features of length 1: of each text its end-of-text token, after the final norm and the projection."""
        parts = [self._tokenize(texts[i : i + 64]).to(self.device) for i in range(0, len(texts), 64)]
        return F.normalize(torch.cat([self._text(part) for part in parts]), dim=-1)
