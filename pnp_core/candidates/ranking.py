"""Whether there are too many classes to look at each, and what ranks them then."""

from __future__ import annotations

from typing import Literal

from pnp_core.candidates.config import CandidatesConfig
from pnp_core.data import IGNORE
from pnp_core.errors import UsageError
from pnp_core.frozen import Config
from pnp_core.openclip.config import View

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
    from pnp_core.openclip.model import clip_revision  # imports torch, which a run without any work does not need

    clip = config.clip
    revision = clip_revision(clip)
    return Ranking(by="clip", keep=config.rerank, weights=revision, template=clip.template, view=config.view)
