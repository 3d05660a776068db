"""The weighted sum of runs' scores, by hand."""

import numpy as np
import pytest

from pnp_core.masks.label_map import Scores
from pnp_core.masks.refine.off import softmax
from pnp_core.methods.ensemble.combine import weighted_sum


def scores(probabilities: list, labels: tuple[int, ...], strength: list[float]) -> Scores:
    """Scores of an image of one row, by the probabilities of its pixels."""
    rows = np.array(probabilities, np.float32)[:, None]
    return Scores(np.log(rows), labels, np.array(strength, np.float32))


def summed(*weighed: tuple[float, Scores]) -> tuple[tuple[int, ...], np.ndarray]:
    """Labels, and what a refiner begins with."""
    both = weighted_sum(weighed)
    assert both.fit((1, both.channels.shape[2]), len(both.strength))
    assert both.channels.dtype == np.float32
    return both.labels, softmax(both.channels)[:, 0]


def test_probabilities_of_two_runs_add_up_by_weight():
    one = scores([[0.9, 0.2], [0.1, 0.8]], (0, 3), [1.0])
    other = scores([[0.4, 0.3], [0.6, 0.7]], (0, 3), [2.0])
    labels, probabilities = summed((0.6, one), (0.4, other))
    assert labels == (0, 3)
    assert probabilities == pytest.approx(np.array([[0.7, 0.24], [0.3, 0.76]]), abs=1e-6)
    assert weighted_sum([(0.6, one), (0.4, other)]).strength == pytest.approx([1.4])


def test_scores_of_another_size_count_the_same():
    """Logits 3 and 0 and scores in [0, 1] both become probabilities first."""
    raw = Scores(np.array([[[3.0]], [[0.0]]], np.float32), (1, 2), np.ones(2, np.float32))
    flat = Scores(np.array([[[0.0]], [[1.0]]], np.float32), (1, 2), np.ones(2, np.float32))
    _, probabilities = summed((0.5, raw), (0.5, flat))
    expected = (np.exp(3) / (np.exp(3) + 1) + 1 / (1 + np.e)) / 2
    assert probabilities[0, 0] == pytest.approx(expected, abs=1e-6)


def test_classes_in_another_order_or_of_one_run_alone_are_added_by_label():
    with_background = scores([[0.5], [0.3], [0.2]], (0, 5, 4), [1.0, 1.0])
    without = scores([[0.6], [0.4]], (4, 5), [1.0, 1.0])
    labels, probabilities = summed((0.5, with_background), (0.5, without))
    assert labels == (0, 4, 5)
    assert probabilities[:, 0] == pytest.approx([0.25, 0.4, 0.35], abs=1e-6)


def test_of_several_channels_of_a_class_the_highest_counts():
    several = scores([[0.25], [0.4], [0.35]], (1, 0, 1), [1.0])
    plain = scores([[0.5], [0.5]], (0, 1), [1.0])
    labels, probabilities = summed((0.5, several), (0.5, plain))
    assert labels == (0, 1)
    assert probabilities[:, 0] == pytest.approx(np.array([0.45, 0.425]) / 0.875, abs=1e-6)


def test_what_nobody_gives_any_probability_has_a_finite_score():
    sure = Scores(np.array([[[200.0]], [[-200.0]]], np.float32), (0, 1), np.ones(1, np.float32))
    both = weighted_sum([(0.5, sure), (0.5, sure)])
    assert np.isfinite(both.channels).all()
    assert softmax(both.channels)[0, 0, 0] == 1


def test_one_run_alone_is_as_it_is_to_the_last_bit():
    one = Scores(np.random.default_rng(0).random((3, 4, 5), np.float32), (0, 2, 2), np.ones(1, np.float32))
    assert weighted_sum([(1.0, one)]) is one
