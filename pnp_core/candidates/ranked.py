"""Thousands of classes: a contrastive head ranks them all, and only the best are candidates.

An image is encoded once, the classes' texts once in all; what grows with the classes is their product alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from pnp_core.candidates.base import Images, Proposal, SourceContext
from pnp_core.candidates.clip import ClipTexts
from pnp_core.candidates.ranking import Ranking


class RankedCandidates:
    """The best classes of each image, with their match score where the source is `itm`; see `CandidateSource`."""

    def __init__(self, context: SourceContext, ranking: Ranking) -> None:
        self._source, self._ranking = context.config.source, ranking
        self._allowed = np.array(context.allowed)
        self._clip = ClipTexts(context, kept=True) if ranking.by == "clip" else None

    @property
    def default_min_score(self) -> float | None:
        """As the source alone."""
        return 0.5 if self._source == "itm" else None

    def preprocess(self, image: np.ndarray) -> Any:
        """CLIP's own pixels, where it ranks."""
        return None if self._clip is None else self._clip.pixels(image)

    def propose(self, images: Images, prepared: Sequence[Any]) -> list[Proposal]:
        """The best classes of each image, in label order."""
        best = [tuple(self._allowed[row].tolist()) for row in self._best(images, prepared)]
        if self._source != "itm":
            return [Proposal(labels) for labels in best]
        scores = images.match_each(best)
        return [Proposal(labels, tuple(row.tolist())) for labels, row in zip(best, scores, strict=True)]

    def _best(self, images: Images, prepared: Sequence[Any]) -> Int[np.ndarray, "B R"]:
        """Places of the best among the allowed classes, in their order; equal ones by it."""
        scores = self._scores(images, prepared)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self._ranking.keep]
        return np.sort(order, axis=1)

    def _scores(self, images: Images, prepared: Sequence[Any]) -> Float[np.ndarray, "B C"]:
        if self._clip is None:
            return images.similarity(tuple(self._allowed.tolist()))
        return self._clip.similarity(torch.stack(list(prepared))).cpu().numpy()
