"""Zero-shot CLIP as a filter: softmax over the vocabulary of picture-text similarity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pnp_core.candidates.base import Images, Proposal, SourceContext
from pnp_core.candidates.config import CandidatesConfig
from pnp_core.devices import resolve_device
from pnp_core.openclip.model import clip_revision, load_clip


class ClipCandidates:
    """Classes by CLIP's zero-shot probability; see `CandidateSource`."""

    default_min_score = 0.05

    def __init__(self, context: SourceContext) -> None:
        clip = context.config.clip
        self._model = load_clip(clip, str(resolve_device(context.device)))
        self._allowed = context.allowed
        # Encoded once: the vocabulary is the same for every image.
        names = [context.card.captions[label - 1] for label in context.allowed]
        self._texts = self._model.encode_texts([clip.template.replace("{}", name) for name in names])

    @staticmethod
    def revision(config: CandidatesConfig) -> str:
        """Names the weights in fingerprints.

        Raises:
            CheckpointError, UnknownNameError: there are none.
        """
        return clip_revision(config.clip)

    def preprocess(self, image: np.ndarray) -> torch.Tensor:
        """CLIP's own pixels of an image (3, h, w)."""
        return self._model.pixels(image)

    def propose(self, images: Images, prepared: Sequence[torch.Tensor]) -> list[Proposal]:
        """Every class with its probability."""
        similarity = self._model.encode_pixels(torch.stack(list(prepared))) @ self._texts.T
        probabilities = (similarity * self._model.scale).softmax(-1)
        return [Proposal(self._allowed, tuple(row)) for row in probabilities.tolist()]
