"""Connected components against scipy's, and maps of numbers as runs."""

import numpy as np
import pytest
from scipy import ndimage

from pnp_core.masks.components import components, packed, unpacked


@pytest.mark.parametrize("seed", range(8))
def test_pieces_are_those_of_scipy_by_class(seed):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, tuple(draw.integers(1, 40, 2))).astype(np.uint8)
    found, expected, number = components(labels), np.zeros(labels.shape, int), 0
    for label in (1, 2):
        own, count = ndimage.label(labels == label, structure=np.ones((3, 3)))
        expected[own > 0] = own[own > 0] + number
        number += count
    assert found.max() == number
    assert ((found > 0) == (labels > 0)).all()
    pairs = np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(expected))
    firsts = [int(np.flatnonzero(found.ravel() == n)[0]) for n in range(1, number + 1)]
    assert firsts == sorted(firsts)


def test_a_spiral_is_one_piece():
    labels = np.zeros((9, 9), dtype=np.uint8)
    for ring in range(0, 5, 2):
        labels[ring, ring : 9 - ring] = labels[8 - ring, ring : 9 - ring] = 1
        labels[ring : 9 - ring, ring] = labels[ring : 9 - ring, 8 - ring] = 1
    labels[1, 1] = labels[3, 3] = 1
    assert components(labels).max() == 1


def test_nothing_has_no_pieces():
    assert components(np.zeros((3, 4), dtype=np.uint8)).max() == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (40, 31)])
def test_runs_give_the_map_back(size):
    numbers = np.random.default_rng(0).integers(0, 4, size) * (2**22 - 1)
    assert (unpacked(packed(numbers), size) == numbers).all()
