"""The method's own match score as a filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pnp_core.candidates.base import Images, Proposal, SourceContext


class MatchCandidates:
    """Classes by the probability that the method matches them with the image; see `CandidateSource`."""

    default_min_score = 0.5

    def __init__(self, context: SourceContext) -> None:
        self._allowed = context.allowed

    def preprocess(self, image: np.ndarray) -> None:
        """Nothing is needed: the method has encoded the image."""

    def propose(self, images: Images, prepared: Sequence[Any]) -> list[Proposal]:
        """Every class with its match probability."""
        found = images.match(self._allowed).tolist()
        return [Proposal(self._allowed, tuple(row)) for row in found]
