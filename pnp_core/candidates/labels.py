"""Image-level labels of the dataset as candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pnp_core.candidates.base import Proposal
from pnp_core.data import Sample


class LabelCandidates:
    """The classes that came with the picture, from masks or boxes; see `CandidateSource`."""

    default_min_score = None

    def preprocess(self, picture: np.ndarray) -> None:
        """Nothing is needed."""

    def propose(self, samples: Sequence[Sample], prepared: Sequence[Any], image_tokens: torch.Tensor) -> list[Proposal]:
        """The samples' own classes."""
        why = "no candidate classes: no image-level labels"
        known = [sample.classes is not None for sample in samples]
        return [
            Proposal(sample.classes or (), why_empty=why, unknown=not told, certain=told)
            for sample, told in zip(samples, known, strict=True)
        ]


class VocabularyCandidates:
    """Every class, in every picture; see `CandidateSource`."""

    default_min_score = None

    def __init__(self, allowed: tuple[int, ...]) -> None:
        self._allowed = allowed

    def preprocess(self, picture: np.ndarray) -> None:
        """Nothing is needed."""

    def propose(self, samples: Sequence[Sample], prepared: Sequence[Any], image_tokens: torch.Tensor) -> list[Proposal]:
        """The whole vocabulary."""
        return [Proposal(self._allowed) for _ in samples]
