"""The recurrence: which names are kept, and when that is the end (the paper's algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch.nn import functional as F

Round = Callable[[list[int], bool], tuple[torch.Tensor, np.ndarray]]
"""(numbers of the names, whether it is the first round) -> maps (n, ...) and scores (n,) of them."""


def kept_of(scores: Sequence[float] | np.ndarray, threshold: float) -> list[int]:
    """Places of scores above a threshold; the best one's where there are none.

    >>> kept_of([0.2, 0.7, 0.5], 0.4), kept_of([0.2, 0.3], 0.4)
    ([1, 2], [1])
    """
    found = [i for i, score in enumerate(scores) if score > threshold]
    return found or [int(np.argmax(scores))]


def recur(number: int, look: Round, threshold: float) -> tuple[list[int], torch.Tensor, Float[np.ndarray, " N"]]:
    """Drop names round by round until as many are left as in the round before: two rounds at least, N + 1 at most.

    Args:
        number: N names, at least one.
        look: one round.
        threshold: score that names are kept above.

    Returns:
        Numbers of those left, in order; the last round's maps of them; each name's score in its last round.
    """
    names, before, last = list(range(number)), 0, np.zeros(number, dtype=np.float32)
    while True:
        maps, scores = look(names, before == 0)
        last[names] = scores
        kept = kept_of(scores, threshold)
        names = [names[i] for i in kept]
        if len(kept) == before:  # of a set that only shrinks: it is the same one
            return names, maps, last
        before = len(kept)


def scores_of(
    images: Float[torch.Tensor, "N E"], texts: Float[torch.Tensor, "T N E"], scale: float
) -> Float[torch.Tensor, " N"]:
    """How well each name fits the picture that is shown for it, in [0, 1].

    Of each template the softmax over names; their sum over templates; the softmax over names of that.

    Args:
        images: features of the pictures, one a name, of any length.
        texts: of T templates and the N names, of length 1.
        scale: of the cosines.
    """
    cosines = F.normalize(images, dim=-1) @ texts.transpose(1, 2)
    return (scale * cosines).softmax(-1).sum(0).softmax(-1).diagonal()
