"""What the method needs of a vision-language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int

from pnp_core.methods.pnp.prompts import TextEncoder

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's normalisation of RGB in [0, 1], which model pixels have for every backbone."""


@dataclass(frozen=True)
class Match:
    """The part of an image-text-matching pass that salience needs.

    Attributes:
        probabilities: per wanted layer, cross-attention (B, heads, N * T, 1 + P); entry 0 of the
            last axis is the image's CLS token.
        logits: raw match logits (B, N).
        itm: match probabilities (B, N) in [0, 1], detached.
    """

    probabilities: list[Float[torch.Tensor, "B H NT P1"]]
    logits: Float[torch.Tensor, "B N"]
    itm: Float[torch.Tensor, "B N"]


@runtime_checkable
class Contrastive(Protocol):
    """A backbone that also compares image and text without looking at both together."""

    def image_features(self, image_tokens: Float[torch.Tensor, "B P1 D"]) -> Float[torch.Tensor, "B E"]:
        """Of length 1, of what `Backbone.encode_image` gives."""
        ...

    def text_features(self, texts: list[str]) -> Float[torch.Tensor, "N E"]:
        """Of length 1.

        Raises:
            CaptionTooLongError: a text is longer than the encoder takes.
        """
        ...


@runtime_checkable
class Backbone(TextEncoder, Protocol):
    """A frozen vision-language model with text-to-image cross-attention and a match head."""

    layers: int
    heads: int
    patch_size: int
    grid: tuple[int, int]
    device: torch.device

    def encode_image(self, pixels: Float[torch.Tensor, "B 3 H W"]) -> Float[torch.Tensor, "B ... D"]:
        """What `match` needs of the pictures (normalised model pixels), float32, without a gradient.

        Image tokens (B, 1 + P, D), CLS first, or several layers of them (B, L, 1 + P, D).
        """
        ...

    def match(
        self,
        image_tokens: Float[torch.Tensor, "B ... D"],
        ids: Int[torch.Tensor, "B N T"],
        mask: Bool[torch.Tensor, "B N T"],
        layers: Sequence[int],
    ) -> Match:
        """Match N captions with each picture; the graph begins at the lowest wanted layer.

        Below that layer nothing is recorded. Its probabilities are the leaf of the graph; those
        of higher wanted layers depend on it, so `torch.autograd.grad` gives total derivatives. With no
        layer wanted only the scores are computed.
        """
        ...
