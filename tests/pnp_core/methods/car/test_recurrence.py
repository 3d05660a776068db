"""Rounds, the stop rule and scores, by hand."""

import numpy as np
import pytest
import torch

from pnp_core.methods.car.recurrence import kept_of, recur, scores_of


def rounds_of(table):
    """A round that takes its scores from a table, and notes who was asked."""
    asked = []

    def look(numbers, first):
        asked.append((tuple(numbers), first))
        return torch.tensor(numbers, dtype=torch.float32)[:, None], np.array(
            [table[n][len(asked) - 1] for n in numbers]
        )

    return look, asked


def test_names_are_dropped_until_as_many_are_left_as_before():
    # Round 1 keeps 0, 2, 3; round 2 keeps 2, 3; round 3 keeps both: the end.
    table = {0: [0.9, 0.1], 1: [0.2], 2: [0.8, 0.7, 0.6], 3: [0.9, 0.8, 0.9]}
    look, asked = rounds_of(table)
    left, maps, last = recur(4, look, 0.5)
    assert asked == [((0, 1, 2, 3), True), ((0, 2, 3), False), ((2, 3), False)]
    assert left == [2, 3]
    assert maps.tolist() == [[2], [3]]
    assert last.tolist() == pytest.approx([0.1, 0.2, 0.6, 0.9])


def test_there_are_two_rounds_even_where_all_are_kept():
    look, asked = rounds_of({0: [1, 1], 1: [1, 1]})
    assert recur(2, look, 0.5)[0] == [0, 1]
    assert [first for _, first in asked] == [True, False]


def test_the_best_one_stays_where_none_is_good_enough():
    look, asked = rounds_of({0: [0.1], 1: [0.3, 0.2], 2: [0.2]})
    assert recur(3, look, 0.5)[0] == [1]
    assert asked == [((0, 1, 2), True), ((1,), False)]


def test_n_names_take_n_plus_1_rounds_at_most():
    table = {n: [0.9] * n + [0.1] * 9 for n in range(5)}  # name n is dropped in round n + 1
    look, asked = rounds_of(table)
    assert recur(5, look, 0.5)[0] == [4]
    assert len(asked) == 6 or asked[-1][0] == (4,)


def test_a_score_at_the_threshold_is_not_above_it():
    assert kept_of([0.5, 0.6], 0.5) == [1]
    assert kept_of([0.5, 0.5], 0.5) == [0], "the first of equally good ones"


def test_scores_are_a_softmax_of_the_sum_over_templates_of_softmaxes():
    random = np.random.default_rng(0)
    images, texts = random.normal(size=(3, 4)), random.normal(size=(2, 3, 4))
    texts /= np.linalg.norm(texts, axis=-1, keepdims=True)
    expected = []
    for i, image in enumerate(images):
        image = image / np.linalg.norm(image)
        total = np.zeros(3)
        for template in texts:
            raised = np.exp(10 * template @ image)
            total += raised / raised.sum()
        expected.append(np.exp(total[i]) / np.exp(total).sum())
    found = scores_of(torch.tensor(images), torch.tensor(texts), 10.0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
