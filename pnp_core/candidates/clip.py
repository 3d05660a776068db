"""Zero-shot CLIP as a filter: softmax over the vocabulary of picture-text similarity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from pnp_core.candidates.base import Images, Proposal, SourceContext
from pnp_core.candidates.config import CandidatesConfig
from pnp_core.devices import resolve_device
from pnp_core.openclip.config import View
from pnp_core.openclip.model import clip_revision, load_clip
from pnp_core.openclip.text_cache import cached_texts


class ClipTexts:
    """A CLIP, and the texts of the classes that may be candidates, encoded once.

    Args:
        kept: keep the texts' features on this machine, for the next process; see `cached_texts`.
    """

    def __init__(self, context: SourceContext, kept: bool = False) -> None:
        clip = context.config.clip
        self._model = load_clip(clip, str(resolve_device(context.device)))
        self._view: View = context.config.view
        asked = [context.prompts_of(label) for label in context.allowed]
        texts = [clip.template.replace("{}", prompt) for prompts in asked for prompt in prompts]
        encode = self._model.encode_texts
        self._texts = cached_texts(encode, clip_revision(clip), texts).to(self._model.device) if kept else encode(texts)
        self._first = np.cumsum([0, *(len(prompts) for prompts in asked)])[:-1]
        self._one_each = len(texts) == len(asked)
        self.scale = self._model.scale

    def pixels(self, image: np.ndarray) -> torch.Tensor:
        """CLIP's own pixels of an image (3, h, w)."""
        return self._model.pixels(image, self._view)

    def similarity(self, pixels: Float[torch.Tensor, "B 3 h w"]) -> Float[torch.Tensor, "B C"]:
        """Cosine in [-1, 1] of each image and class; of several prompts the best counts."""
        found = self._model.encode_pixels(pixels) @ self._texts.T
        if self._one_each:
            return found
        return torch.from_numpy(np.maximum.reduceat(found.cpu().numpy(), self._first, axis=1))


class ClipCandidates:
    """Classes by CLIP's zero-shot probability; see `CandidateSource`."""

    default_min_score = 0.05

    def __init__(self, context: SourceContext) -> None:
        self._clip, self._allowed = ClipTexts(context), context.allowed

    @staticmethod
    def revision(config: CandidatesConfig) -> str:
        """Names the weights in fingerprints.

        Raises:
            CheckpointError, UnknownNameError: there are none.
        """
        return clip_revision(config.clip)

    def preprocess(self, image: np.ndarray) -> torch.Tensor:
        """CLIP's own pixels of an image (3, h, w)."""
        return self._clip.pixels(image)

    def propose(self, images: Images, prepared: Sequence[torch.Tensor]) -> list[Proposal]:
        """Every class with its probability."""
        similarity = self._clip.similarity(torch.stack(list(prepared)))
        probabilities = (similarity * self._clip.scale).softmax(-1)
        return [Proposal(self._allowed, tuple(row)) for row in probabilities.tolist()]
