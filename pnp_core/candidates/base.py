"""What a source of candidate classes offers, and how its proposal becomes a choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from pnp_core.candidates.config import CandidatesConfig
from pnp_core.data import Sample
from pnp_core.inputs.cards import DatasetCard


@dataclass(frozen=True)
class Proposal:
    """What a source knows of one picture.

    Attributes:
        classes: labels, in any order.
        scores: one per class in [0, 1]; None when the source does not grade.
        why_empty: reason for people when there are no classes.
        unknown: the source knows nothing of this picture; then there is no fallback either.
        certain: the source knows; without classes the picture holds none, and is all background.
    """

    classes: tuple[int, ...]
    scores: tuple[float, ...] | None = None
    why_empty: str = "no candidate classes"
    unknown: bool = False
    certain: bool = False


@dataclass(frozen=True)
class Choice:
    """The classes that go into a picture's caption.

    Attributes:
        classes: labels in increasing order; empty when there is nothing to label.
        scores: of each class in [0, 1], None where there is no grade.
        how: the source, and the fallback when it was needed; or why there are none.
        usable: False when the picture is to be quarantined; a picture may be all background.
    """

    classes: tuple[int, ...]
    scores: tuple[float | None, ...]
    how: str
    usable: bool = True


@dataclass(frozen=True)
class SourceContext:
    """What a source may need of a run.

    Attributes:
        allowed: labels that may be candidates.
        device: where a source's own model goes: `auto`, `cpu`, `cuda:1` ...
        prompts: what each class is asked by, from label 1; by its caption where empty.
    """

    config: CandidatesConfig
    card: DatasetCard
    allowed: tuple[int, ...]
    device: str
    prompts: tuple[tuple[str, ...], ...] = ()

    def prompts_of(self, label: int) -> tuple[str, ...]:
        """What a class is asked by."""
        return self.prompts[label - 1] if self.prompts else (self.card.captions[label - 1],)


def _not_asked(_: Any) -> Any:
    raise TypeError("only ranked candidates ask for this, and whoever opens them gives it")


@dataclass(frozen=True)
class Images:
    """A batch of B images.

    Attributes:
        match: how probably each holds each of some classes, in [0, 1] (`LoadedMethod.match`).
        match_each: how probably each holds each of its own classes (`LoadedMethod.match_each`).
        similarity: how alike each and each of some classes are (`LoadedMethod.similarity`).
    """

    samples: Sequence[Sample]
    match: Callable[[tuple[int, ...]], Float[np.ndarray, "B C"]]
    match_each: Callable[[Sequence[tuple[int, ...]]], list[np.ndarray]] = _not_asked
    similarity: Callable[[tuple[int, ...]], Float[np.ndarray, "B C"]] = _not_asked


@runtime_checkable
class CandidateSource(Protocol):
    """A source of candidate classes, made of a `SourceContext`."""

    @property
    def default_min_score(self) -> float | None:
        """Used when the configuration names none; None keeps every class."""
        ...

    def preprocess(self, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        """What `propose` needs of the pixels; called on the decoding threads."""
        ...

    def propose(self, images: Images, prepared: Sequence[Any]) -> list[Proposal]:
        """One proposal per image of a batch.

        Args:
            prepared: results of `preprocess`.
        """
        ...


def choose(proposal: Proposal, config: CandidatesConfig, default: float | None, allowed: Sequence[int]) -> Choice:
    """Apply the score threshold, the fallback and the limit to a proposal.

    Args:
        default: threshold when the configuration has none.
        allowed: labels that may be chosen, in vocabulary order.
    """
    if proposal.certain and not proposal.classes:
        return Choice((), (), f"{config.source}, no class: all background")
    scores = proposal.scores or (None,) * len(proposal.classes)
    may = set(proposal.classes).intersection(allowed)
    graded = {c: s for c, s in zip(proposal.classes, scores, strict=True) if c in may}
    least = config.min_score if config.min_score is not None else default
    kept = {c: s for c, s in graded.items() if s is None or least is None or s > least}
    how = config.source
    if proposal.unknown:
        kept, how = {}, proposal.why_empty
    elif not kept:
        kept, how = _fall_back(graded, config, allowed, proposal.why_empty)
    usable = bool(kept) or (config.fallback == "background" and not proposal.unknown)
    # Best first; equal ones in vocabulary order.
    ranked = sorted(kept, key=lambda c: (-(kept[c] or 0), c))[: config.top_k]
    classes = tuple(sorted(ranked))
    return Choice(classes, tuple(kept[c] for c in classes), how, usable)


def _fall_back(
    graded: dict[int, float | None], config: CandidatesConfig, allowed: Sequence[int], why_empty: str
) -> tuple[dict[int, float | None], str]:
    """Classes for a picture where none scores enough."""
    if config.fallback == "first":
        return {allowed[0]: graded.get(allowed[0])}, f"{config.source}, first of the vocabulary"
    if config.fallback == "best" and graded:
        best = min(graded, key=lambda c: (-(graded[c] or 0), c))
        return {best: graded[best]}, f"{config.source}, best below the threshold"
    if config.fallback == "background":
        return {}, f"{config.source}, no class: all background"
    return {}, why_empty if not graded else "no candidate class scores enough"
