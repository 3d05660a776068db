"""Which classes are asked about (ALGORITHM section 5); sources by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from pnp_core.candidates.base import CandidateSource, Choice, Images, Proposal, SourceContext, choose
from pnp_core.candidates.config import CandidatesConfig
from pnp_core.candidates.ranking import Ranking, ranking_of
from pnp_core.registry import Registry

__all__ = [
    "SOURCES",
    "CandidateSource",
    "Choice",
    "Images",
    "Proposal",
    "Ranking",
    "SourceContext",
    "candidates_revision",
    "choose",
    "open_candidates",
    "ranking_of",
]

SOURCES: Registry[Callable[[SourceContext], CandidateSource]] = Registry(
    "source of candidate classes",
    "pnp_ovss.candidates",
    {
        "labels": "pnp_core.candidates.labels:LabelCandidates",
        "vocabulary": "pnp_core.candidates.labels:VocabularyCandidates",
        "file": "pnp_core.candidates.file:FileCandidates",
        "itm": "pnp_core.candidates.itm:MatchCandidates",
        "clip": "pnp_core.candidates.clip:ClipCandidates",
    },
)
"""One whose results depend on data of its own has `revision`, a function of its configuration that names them."""


def candidates_revision(candidates: CandidatesConfig) -> str | None:
    """What names the source's own data in fingerprints; found before anything is started.

    Raises:
        UnknownNameError: no such source.
        PnpError: its file or weights are missing.
    """
    revision = getattr(SOURCES.get(candidates.source), "revision", None)
    return revision(candidates) if revision else None


@lru_cache(maxsize=1)
def open_candidates(context: SourceContext, revision: str | None, ranking: Ranking | None = None) -> CandidateSource:
    """A source, with its model or file loaded; a process keeps the last one for the next shard.

    Args:
        revision: from `candidates_revision`; a changed file is read again.
        ranking: where there are too many classes to look at each.

    Raises:
        PnpError: the file or the weights cannot be read.
    """
    if ranking is None:
        return SOURCES.get(context.config.source)(context)
    from pnp_core.candidates.ranked import RankedCandidates  # imports torch, as sources do when they are opened

    return RankedCandidates(context, ranking)
