"""Zero-shot CLIP as a filter: softmax over the vocabulary of picture-text similarity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pnp_core.candidates.base import Proposal
from pnp_core.data import Sample
from pnp_core.openclip.model import ClipModel


class ClipCandidates:
    """Classes by CLIP's zero-shot probability; see `CandidateSource`."""

    default_min_score = 0.05

    def __init__(self, model: ClipModel, captions: Sequence[str], allowed: tuple[int, ...], template: str) -> None:
        self._model = model
        self._allowed = allowed
        # Encoded once: the vocabulary is the same for every picture.
        self._texts = model.encode_texts([template.replace("{}", captions[c - 1]) for c in allowed])

    def preprocess(self, picture: np.ndarray) -> torch.Tensor:
        """CLIP's own pixels of a picture (3, h, w)."""
        return self._model.pixels(picture)

    def propose(
        self, samples: Sequence[Sample], prepared: Sequence[torch.Tensor], image_tokens: torch.Tensor
    ) -> list[Proposal]:
        """Every class with its probability."""
        similarity = self._model.encode_pixels(torch.stack(list(prepared))) @ self._texts.T
        probabilities = (similarity * self._model.scale).softmax(-1)
        return [Proposal(self._allowed, tuple(row)) for row in probabilities.tolist()]
