"""Image-level labels of the dataset as candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pnp_core.candidates.base import Images, Proposal, SourceContext


class LabelCandidates:
    """The classes that came with the picture, from masks or boxes; see `CandidateSource`."""

    default_min_score = None

    def __init__(self, context: SourceContext) -> None:
        """Nothing of it is needed."""

    def preprocess(self, image: np.ndarray) -> None:
        """Nothing is needed."""

    def propose(self, images: Images, prepared: Sequence[Any]) -> list[Proposal]:
        """The samples' own classes."""
        why = "no candidate classes: no image-level labels"
        known = [sample.classes is not None for sample in images.samples]
        return [
            Proposal(sample.classes or (), why_empty=why, unknown=not told, certain=told)
            for sample, told in zip(images.samples, known, strict=True)
        ]


class VocabularyCandidates:
    """Every class, in every picture; see `CandidateSource`."""

    default_min_score = None

    def __init__(self, context: SourceContext) -> None:
        self._allowed = context.allowed

    def preprocess(self, image: np.ndarray) -> None:
        """Nothing is needed."""

    def propose(self, images: Images, prepared: Sequence[Any]) -> list[Proposal]:
        """The whole vocabulary."""
        return [Proposal(self._allowed) for _ in images.samples]
