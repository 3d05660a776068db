"""Who judges a region in the reward: a CLIP, as in the paper, or the backbone's own match score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, UInt8

from pnp_core.methods.pnp.backbones import Backbone
from pnp_core.methods.pnp.backbones.base import PIXEL_MEAN, PIXEL_STD
from pnp_core.methods.pnp.config import CaptionConfig
from pnp_core.methods.pnp.matching import match_probabilities
from pnp_core.methods.pnp.prompts import Prompts, build_prompts
from pnp_core.openclip.model import ClipModel


@runtime_checkable
class RegionScorer(Protocol):
    """Looks at pictures cut to a region, and says how well each class of its vocabulary fits."""

    @property
    def size(self) -> int:
        """Side of its input in pixels."""
        ...

    @property
    def classes(self) -> int:
        """Length V of its vocabulary."""
        ...

    def look(
        self, images: UInt8[torch.Tensor, "B s s 3"], regions: Bool[torch.Tensor, "B s s"]
    ) -> Float[torch.Tensor, "B V"]:
        """Scores that a softmax over the vocabulary takes."""
        ...


@dataclass(frozen=True)
class ClipOnlooker:
    """Cosines of CLIP's features times its scale (authors: / 0.01)."""

    clip: ClipModel
    texts: torch.Tensor
    """Features of the classes' captions (V, D), encoded once."""

    @classmethod
    def create(cls, clip: ClipModel, names: Sequence[str], template: str) -> ClipOnlooker:
        """Encode the vocabulary.

        Args:
            names: of classes as captions say them.
            template: with `{}` for the name.
        """
        return cls(clip, clip.encode_texts([template.replace("{}", name) for name in names]))

    @property
    def size(self) -> int:
        """See `RegionScorer`."""
        return self.clip.size

    @property
    def classes(self) -> int:
        """See `RegionScorer`."""
        return len(self.texts)

    def look(
        self, images: UInt8[torch.Tensor, "B s s 3"], regions: Bool[torch.Tensor, "B s s"]
    ) -> Float[torch.Tensor, "B V"]:
        """See `RegionScorer`."""
        return self.clip.scale * self.clip.encode_regions(images, regions) @ self.texts.T


class MatchOnlooker:
    """Log odds that a class's own caption matches: the model judges itself, and nothing else is needed."""

    def __init__(self, backbone: Backbone, names: Sequence[str], caption: CaptionConfig) -> None:
        self._backbone, self.classes = backbone, len(names)
        self._prompts: Prompts = build_prompts(names, caption.model_copy(update={"mode": "per_class"}), backbone)
        self.size = backbone.grid[0] * backbone.patch_size
        self._mean, self._std = (torch.tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))

    @torch.no_grad()
    def look(
        self, images: UInt8[torch.Tensor, "B s s 3"], regions: Bool[torch.Tensor, "B s s"]
    ) -> Float[torch.Tensor, "B V"]:
        """See `RegionScorer`; zero in normalised space beyond the region."""
        pixels = (images.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std * regions[:, None]
        tokens = self._backbone.encode_image(pixels)
        return torch.logit(match_probabilities(self._backbone, tokens, self._prompts), eps=1e-6)
