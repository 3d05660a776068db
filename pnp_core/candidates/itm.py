"""The backbone's own match score as a filter: one caption per class, no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pnp_core.candidates.base import Proposal
from pnp_core.data import Sample
from pnp_core.methods.pnp.backbones.base import Backbone
from pnp_core.methods.pnp.config import CaptionConfig
from pnp_core.methods.pnp.matching import match_probabilities
from pnp_core.methods.pnp.prompts import build_prompts


class MatchCandidates:
    """Classes by the probability that their caption matches the picture; see `CandidateSource`."""

    default_min_score = 0.5

    def __init__(
        self, backbone: Backbone, captions: Sequence[str], allowed: tuple[int, ...], caption: CaptionConfig
    ) -> None:
        names = [captions[c - 1] for c in allowed]
        self._prompts = build_prompts(names, caption.model_copy(update={"mode": "per_class"}), backbone)
        self._backbone = backbone
        self._allowed = allowed

    def preprocess(self, picture: np.ndarray) -> None:
        """Nothing is needed: the image tokens are the backbone's."""

    def propose(self, samples: Sequence[Sample], prepared: Sequence[Any], image_tokens: torch.Tensor) -> list[Proposal]:
        """Every class with its match probability."""
        return [
            Proposal(self._allowed, tuple(row))
            for row in match_probabilities(self._backbone, image_tokens, self._prompts).tolist()
        ]
