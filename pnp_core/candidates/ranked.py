"""Thousands of classes: a contrastive head ranks them all, and only the best are candidates.

An image is encoded once, the classes' texts once in all; what grows with the classes is their product alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from pnp_core.candidates.base import Images, Proposal, SourceContext
from pnp_core.candidates.clip import ClipTexts
from pnp_core.candidates.config import CandidatesConfig
from pnp_core.data import IGNORE
from pnp_core.errors import UsageError
from pnp_core.frozen import Config
from pnp_core.openclip.config import View
from pnp_core.openclip.model import clip_revision

RANKED = ("itm", "vocabulary")
"""Sources that look at every class, and at the best alone where there are too many."""


class Ranking(Config):
    """How the classes of a run are ranked; all of it is in the fingerprint."""

    by: Literal["own", "clip"]
    """The method's own contrastive head, or CLIP."""
    keep: int
    """So many are candidates."""
    weights: str | None = None
    """Of the CLIP."""
    template: str | None = None
    view: View | None = None


def ranking_of(config: CandidatesConfig, own: bool, all_matched: bool, classes: int) -> Ranking | None:
    """How so many classes are ranked; None where they are not.

    Args:
        own: whether the method has a contrastive head of its own.
        all_matched: whether all classes that it knows are matched unless a ranker is asked for.

    Raises:
        UsageError: its own head is asked for and it has none.
        CheckpointError, UnknownNameError: there is no such CLIP.
    """
    asked = config.ranker != "auto"
    if config.ranker == "own" and not own:
        raise UsageError("these weights have no contrastive head to rank classes by; use candidates.ranker: clip")
    few = classes <= config.rerank or (not asked and classes < IGNORE)
    whole = not asked and all_matched and config.source == "itm"
    if config.source not in RANKED or config.ranker == "none" or few or whole:
        return None
    if config.ranker == "own" or (not asked and own):
        return Ranking(by="own", keep=config.rerank)
    clip = config.clip
    revision = clip_revision(clip)
    return Ranking(by="clip", keep=config.rerank, weights=revision, template=clip.template, view=config.view)


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
