"""PAMR against loops written from the formulas, in float64; and a picture of 5 x 5 counted by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pnp_core.data import ClassMaps
from pnp_core.masks.config import CrfConfig
from pnp_core.masks.label_map import Scores, make_label_maps
from pnp_core.masks.refine import Smoother, open_refiner
from pnp_core.masks.refine.pamr import neighbour_weights, smooth


def by_loops(channels, guide, steps, dilations):
    """Channels (C, H, W) and a guide (H, W, 3)."""
    height, width = guide.shape[:2]

    def at(values, row, column):
        return values[..., min(max(row, 0), height - 1), min(max(column, 0), width - 1)]

    around = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    colours = guide.transpose(2, 0, 1).astype(float)
    weights = {}
    for r in range(height):
        for c in range(width):
            places = [(r + i * d, c + j * d) for d in dilations for i, j in around if (i, j) != (0, 0)]
            values = [at(colours, r + i * d, c + j * d) for d in dilations for i, j in around]
            sigma = np.std(values, axis=0, ddof=1)
            far = [np.mean(-np.abs(colours[:, r, c] - at(colours, *p)) / (1e-8 + 0.1 * sigma)) for p in places]
            raised = np.exp(np.array(far) - max(far))
            weights[r, c] = list(zip(places, raised / raised.sum(), strict=True))
    for _ in range(steps):
        new = np.zeros_like(channels)
        for (r, c), near in weights.items():
            new[:, r, c] = sum(weight * at(channels, *place) for place, weight in near)
        channels = new
    return channels


@pytest.mark.parametrize(("dilations", "steps"), [((1,), 3), ((8, 16), 2), ((1, 2, 5), 4)])
def test_smoothing_is_what_the_loops_make(dilations, steps):
    rng = np.random.default_rng(0)
    guide, channels = rng.integers(0, 256, (9, 20, 3)).astype(np.float32), rng.normal(size=(3, 9, 20))
    made = smooth(
        torch.from_numpy(channels).float(), torch.from_numpy(guide.transpose(2, 0, 1).copy()), steps, dilations
    )
    np.testing.assert_allclose(made.numpy(), by_loops(channels, guide, steps, dilations), atol=1e-5)


def test_a_picture_of_five_by_five_is_as_counted_by_hand():
    # White but for its last column, which is black. Of the pixel in row 2, column 3 the neighbours at distance 1 are
    # three black and five white ones, and itself: 9 values, 6 of 255 and 3 of 0. Their mean is 170, the squares are
    # 6 * 85^2 + 3 * 170^2 = 130050, sigma = sqrt(130050 / 8) = 127.5. A black one is 255 / 12.75 = 20 away.
    guide = torch.full((3, 5, 5), 255.0)
    guide[:, :, 4] = 0
    near = neighbour_weights(guide, (1,))[:, 2, 3].tolist()
    black, white = math.exp(-20) / (5 + 3 * math.exp(-20)), 1 / (5 + 3 * math.exp(-20))
    assert near == pytest.approx([white, white, black, white, black, white, white, black])
    # In the corner (0, 0) all is white, and the border continues: sigma is 0, and every neighbour counts an eighth.
    assert neighbour_weights(guide, (1,))[:, 0, 0].tolist() == [0.125] * 8
    channel = torch.zeros(1, 5, 5)
    channel[0, 0, 0] = 8
    made = smooth(channel, guide, 1, (1,))
    # (0, 0) lies beyond the border of itself thrice: above left, above, left. Of (0, 1) it is the left one, and above
    # left beyond the border; of (1, 1) it is above left.
    assert made[0, :2, :2].tolist() == [[3, 2], [2, 1]]
    assert float(made.sum()) == 8


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**16))
def test_a_pixel_becomes_a_mean_of_its_neighbours_however_many_are_smoothed_together(height, width, seed):
    rng = torch.Generator().manual_seed(seed)
    guide = torch.randint(0, 256, (3, height, width), generator=rng).float()
    channels = torch.randn(5, height, width, generator=rng)
    weights = neighbour_weights(guide, (2, 3))
    torch.testing.assert_close(weights.sum(0), torch.ones(height, width))
    made = smooth(channels, guide, 3, (2, 3))
    assert made.min() >= channels.min() - 1e-5
    assert made.max() <= channels.max() + 1e-5
    assert torch.equal(made, smooth(channels, guide, 3, (2, 3), chunk=1)), "one by one"
    torch.testing.assert_close(smooth(channels, 0.3 * guide - 20, 3, (2, 3)), made, atol=1e-3, rtol=1e-3)


def test_it_is_a_refiner_by_name_and_smooths_scores_before_the_softmax():
    refine = open_refiner(CrfConfig(name="pamr", steps=1, dilations=(1,)), "cpu")
    assert isinstance(refine, Smoother)
    assert not isinstance(open_refiner(CrfConfig(name="off"), "cpu"), Smoother)
    scores = np.zeros((2, 3, 4), np.float32)
    scores[1, :, 2:] = 1
    (made,) = refine([scores], [np.zeros((3, 4, 3), np.uint8)])
    np.testing.assert_allclose(made.sum(0), 1, atol=1e-6)
    np.testing.assert_allclose(made[1, 1], 1 / (1 + np.exp([0, -0.375, -0.625, -1])), atol=1e-6)


def test_what_a_method_makes_of_its_scores_comes_after_smoothing_and_before_a_crf():
    maps = ClassMaps(np.zeros((1, 1, 1, 1), np.float32), (7,), None, 3, 4)
    image = np.zeros((3, 4, 3), np.uint8)
    raw = np.zeros((3, 3, 4), np.float32)
    raw[0, :, 2:] = 1
    given = []

    def finish(channels):
        given.append(channels)
        return np.stack([channels[0] > 0.5, channels[0] <= 0.5]).astype(np.float32)

    scores = Scores(raw, (7, 0), np.ones(1, np.float32), finish)
    for name, expected in (("pamr", [0, 0.375, 0.625, 1]), ("off", [0, 0, 1, 1])):
        refine = open_refiner(CrfConfig(name=name, steps=1, dilations=(1,)), "cpu")
        (made,) = make_label_maps([maps], [image], lambda *_: scores, refine, 64)
        assert given.pop()[0, 1].tolist() == pytest.approx(expected)
        assert made.labels[1].tolist() == [0, 0, 7, 7]


def test_its_parameters_are_in_no_fingerprint_of_runs_before_it_and_in_no_setting_of_a_crf():
    later = ("steps", "dilations", "guide")
    assert CrfConfig().facts() == {k: v for k, v in CrfConfig().model_dump().items() if k not in later}
    assert "steps" not in CrfConfig().setting()
    assert CrfConfig(name="pamr").setting() == {"name": "pamr", "steps": 10, "dilations": [8, 16]}
    assert CrfConfig(name="off").setting() == {"name": "off"}
