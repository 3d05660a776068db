"""Sources of candidate classes by name."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pnp_core.candidates.base import CandidateSource
from pnp_core.candidates.config import CandidatesConfig
from pnp_core.candidates.file import FileCandidates, file_revision
from pnp_core.candidates.itm import MatchCandidates
from pnp_core.candidates.labels import LabelCandidates, VocabularyCandidates
from pnp_core.errors import UnknownNameError
from pnp_core.inputs.cards import DatasetCard, Words
from pnp_core.methods.pnp.backbones.base import Backbone
from pnp_core.methods.pnp.config import CaptionConfig

SOURCES = ("labels", "vocabulary", "file", "itm", "clip")


def candidates_revision(candidates: CandidatesConfig) -> str | None:
    """What names the source's own data in fingerprints; found before anything is started.

    Raises:
        UnknownNameError: no such source.
        PnpError: its file or weights are missing.
    """
    if candidates.source not in SOURCES:
        raise UnknownNameError("source of candidate classes", candidates.source, SOURCES)
    if candidates.source == "file":
        return file_revision(candidates.file or "")
    if candidates.source == "clip":
        from pnp_core.openclip.model import clip_revision  # open_clip takes seconds to import

        return clip_revision(candidates.clip)
    return None


@lru_cache(maxsize=1)
def open_candidates(
    candidates: CandidatesConfig,
    caption: CaptionConfig,
    card: DatasetCard,
    words: Words,
    allowed: tuple[int, ...],
    backbone: Backbone,
    revision: str | None,
) -> CandidateSource:
    """A source, with its model or file loaded; a process keeps the last one for the next shard.

    Args:
        revision: from `candidates_revision`; a changed file is read again.

    Raises:
        PnpError: the file or the weights cannot be read.
    """
    match candidates.source:
        case "labels":
            return LabelCandidates()
        case "vocabulary":
            return VocabularyCandidates(allowed)
        case "file":
            return FileCandidates(candidates.file or "", card)
        case "itm":
            return MatchCandidates(backbone, card.captions_in(words), allowed, caption)
        case "clip":
            from pnp_core.candidates.clip import ClipCandidates
            from pnp_core.openclip.model import load_clip

            clip: Any = candidates.clip  # frozen, hence hashable, which type checkers do not see
            model = load_clip(clip, str(backbone.device))
            return ClipCandidates(model, card.captions, allowed, candidates.clip.template)
        case name:
            raise UnknownNameError("source of candidate classes", name, SOURCES)
