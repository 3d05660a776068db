"""Scores of several runs to one: probabilities, and their weighted sum by class (a linear opinion pool)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from pnp_core.masks.label_map import Scores

_LEAST = np.finfo(np.float32).tiny
"""Probability of what nobody gives any; its logarithm is a number."""


def probabilities(channels: Float[np.ndarray, "N H W"]) -> Float[np.ndarray, "N H W"]:
    """What refiners begin with: the softmax over channels, in [0, 1], summing to 1.

    >>> probabilities(np.log(np.array([[[1.0]], [[3.0]]]))).ravel().tolist()
    [0.25, 0.75]
    """
    raised = np.exp(channels - channels.max(axis=0))
    return raised / raised.sum(axis=0)


def weighted_sum(weighed: Iterable[tuple[float, Scores]]) -> Scores:
    """Scores of some runs, for one image and the same classes, as one.

    Each run's channels become probabilities, so that runs whose scores are of other sizes count the same; of several
    channels of one class the highest counts, as it does in a run's own argmax. What a run has no channel for, such as
    background, it gives the probability 0. One run alone is as it is, to the last bit.

    Args:
        weighed: shares > 0 that sum to 1, and the runs' scores; taken one after the other, so that of the channels of
            all but the sum only one run's are in memory.

    Returns:
        `channels`: logarithms of the sums, in the order of the labels; `strength`: the weighted mean, though each run
        has a scale of its own.

    >>> one = Scores(np.log(np.array([[[0.25]], [[0.75]]])), (0, 7), np.array([1.0]))
    >>> other = Scores(np.log(np.array([[[0.5]], [[0.5]]])), (7, 7), np.array([3.0]))
    >>> both = weighted_sum([(0.5, one), (0.5, other)])
    >>> both.labels, np.exp(both.channels).ravel().round(3).tolist(), both.strength.tolist()
    ((0, 7), [0.125, 0.625], [2.0])
    """
    totals: dict[int, np.ndarray] = {}
    strength: np.ndarray | None = None
    for number, (share, scores) in enumerate(weighed):
        if number == 0 and share == 1:
            return scores
        for label, probability in _by_label(scores).items():
            totals[label] = totals.get(label, 0) + np.float32(share) * probability
        strength = (0 if strength is None else strength) + np.float32(share) * scores.strength
    assert strength is not None, "no run at all"
    labels = tuple(sorted(totals))
    channels = np.log(np.maximum(np.stack([totals[label] for label in labels]), _LEAST))
    return Scores(channels, labels, strength)


def _by_label(scores: Scores) -> dict[int, np.ndarray]:
    """The probability of each class, its highest channel's."""
    found: dict[int, np.ndarray] = {}
    for label, probability in zip(scores.labels, probabilities(scores.finished(scores.channels)), strict=True):
        found[label] = np.maximum(found[label], probability) if label in found else probability
    return found
