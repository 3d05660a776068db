"""GradCAM, affinity, boxes and refinement against the formulas in float64 numpy; derivatives are differences there."""

import cv2
import numpy as np
import pytest
import torch

from pnp_core.methods.car.proposals import BLOCKS, affinity_of, boxes_of, gradcams, refined, see
from pnp_core.openclip.vit import ClipVit
from tests.clips import random_clip
from tests.pnp_core.openclip.test_vit import ByHand, softmax

SCALE = 20.0
GRID = (3, 4)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module", params=[3, 10], ids=["3 blocks", "10 blocks"])
def model(request):
    return random_clip(image_size=(24, 32), layers=request.param)


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(1, 3, 24, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def texts():
    return unit(np.random.default_rng(2).normal(size=(5, 16)))


@pytest.fixture(scope="module")
def sight(model, pixels):
    return see(ClipVit(model.visual, "random"), pixels)


@pytest.fixture(scope="module")
def hand(model):
    found = ByHand(model)
    found.w["positional_embedding"] = found.w["positional_embedding"].astype(np.float16).astype(float)
    return found


@pytest.fixture(scope="module")
def before_last(hand, pixels):
    """What the last block begins with, and the attention of all blocks."""
    x = hand.norm(hand.embed(pixels[0].double().numpy(), hand.w["positional_embedding"]), "ln_pre")
    attentions = []
    for number in range(hand.last):
        x, attention = hand.block(x, number)
        attentions.append(attention)
    return x, [*attentions, hand.block(x, hand.last)[1]]


def feature_of(hand, x, normed):
    """Of the picture, from the tokens of the last block and these after ln_1."""
    name = f"transformer.resblocks.{hand.last}"
    q, k, v = hand.heads(normed, name)
    seen = [softmax(a @ b.T / np.sqrt(a.shape[1])) @ c for a, b, c in zip(q, k, v, strict=True)]
    x = x + hand.out(np.concatenate(seen, axis=1), name)
    x = x + hand.mlp(x, name)
    return unit((hand.norm(x[1:], "ln_post") @ hand.w["proj"]).mean(0))


def gradcam_by_hand(hand, x, texts, number, scale=SCALE):
    """Shifting a channel of all patches by a little gives the sum over patches of the derivatives."""
    normed, step, weights = hand.norm(x, f"transformer.resblocks.{hand.last}.ln_1"), 1e-5, []
    for channel in range(normed.shape[1]):
        up, down = normed.copy(), normed.copy()
        up[1:, channel] += step
        down[1:, channel] -= step
        up, down = (softmax(scale * texts @ feature_of(hand, x, one))[number] for one in (up, down))
        weights.append((up - down) / (2 * step) / (len(x) - 1))
    cam = np.maximum(normed[1:] @ np.array(weights), 0)
    cam -= cam.min()
    return cam / (cam.max() + 1e-15)


def affinity_by_hand(attentions):
    total = sum(attentions[-BLOCKS:]) / len(attentions[-BLOCKS:])
    t = total[1:, 1:].tolist()
    number = len(t)
    for _ in range(3):
        sums = [sum(t[i][j] for i in range(number)) for j in range(number)]
        t = [[t[i][j] / sums[j] for j in range(number)] for i in range(number)]
        t = [[value / sum(row) for value in row] for row in t]
    return np.array([[(t[i][j] + t[j][i]) / 2 for j in range(number)] for i in range(number)])


def gradcams_of(model, sight, names, background):
    given = (torch.tensor(one, dtype=torch.float32) for one in (names, background))
    return gradcams(ClipVit(model.visual, "random"), sight.trunk, *given, SCALE)


def test_gradcam_is_the_derivative_of_the_probability(model, sight, hand, before_last, texts):
    found = gradcams_of(model, sight, texts[:3], texts[3:])
    assert found.shape == (3, 12)
    assert not found.requires_grad
    for number, one in enumerate(found):
        expected = gradcam_by_hand(hand, before_last[0], texts, number)
        assert expected.max() == pytest.approx(1)
        np.testing.assert_allclose(one.numpy(), expected, atol=1e-5)


def test_a_name_that_the_background_leaves_nothing_of_is_looked_for_without_it(model, sight, hand, before_last, texts):
    # The background is the picture itself, the names are the opposite: e^-150 is 0 in 32 bits, and so are derivatives.
    x = before_last[0]
    image = feature_of(hand, x, hand.norm(x, f"transformer.resblocks.{hand.last}.ln_1"))
    names = unit(-image + 0.1 * texts[:2])
    given = [torch.tensor(one, dtype=torch.float32) for one in (names, image[None])]
    found = gradcams(ClipVit(model.visual, "random"), sight.trunk, *given, 100.0)
    for number, one in enumerate(found):
        np.testing.assert_allclose(one.numpy(), gradcam_by_hand(hand, x, names, number, 100.0), atol=1e-4)


def test_a_name_without_any_other_has_no_derivative_and_no_map(model, sight, texts):
    assert not gradcams_of(model, sight, texts[:1], texts[:0]).any()


def test_affinity_is_the_balanced_attention_of_the_last_blocks(sight, before_last):
    np.testing.assert_allclose(sight.affinity.numpy(), affinity_by_hand(before_last[1]), atol=1e-6)


def test_affinity_of_what_nobody_attends_to_is_no_nan():
    found = affinity_of(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert found.isfinite().all()


def boxes_by_opencv(cam, threshold):
    """As the released code lays them, with its contours."""
    shades = (cam * 255).astype(np.uint8)
    above = (shades > int(threshold * shades.max())).astype(np.uint8)
    inside = np.zeros(cam.shape, dtype=bool)
    for contour in cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]:
        left, top, width, height = cv2.boundingRect(contour)
        inside[top : min(top + height, cam.shape[0] - 1), left : min(left + width, cam.shape[1] - 1)] = True
    return inside


@pytest.mark.parametrize("seed", range(20))
def test_boxes_are_those_around_opencvs_contours_with_holes(seed):
    random = np.random.default_rng(seed)
    cam = cv2.GaussianBlur(random.random((17, 23)), (0, 0), 1.0 + seed % 3)
    cam = ((cam - cam.min()) / (cam.max() - cam.min())).astype(np.float32)
    for threshold in (0, 0.3, 0.5, 0.7):
        np.testing.assert_array_equal(boxes_of(cam, threshold), boxes_by_opencv(cam, threshold))


def test_a_ring_has_one_box_and_nothing_has_none():
    ring = np.zeros((7, 7), np.float32)
    ring[1:6, 1:6] = 1
    ring[2:5, 2:5] = 0
    expected = np.zeros((7, 7), bool)
    expected[1:6, 1:6] = True
    np.testing.assert_array_equal(boxes_of(ring, 0.4), expected)
    assert not boxes_of(np.zeros((3, 3), np.float32), 0.4).any()


def test_refinement_is_the_squared_affinity_with_columns_outside_of_boxes_zeroed():
    random = np.random.default_rng(3)
    t = random.random((12, 12))
    t, cams = (t + t.T) / 2, random.random((2, 12)).astype(np.float32)
    found = refined(torch.from_numpy(cams), torch.from_numpy(t).float(), GRID, 0.6).numpy()
    for cam, one in zip(cams, found, strict=True):
        inside = boxes_by_opencv(cam.reshape(GRID), 0.6).ravel()
        expected = (t @ t * inside) @ cam
        expected = (expected - expected.min()) / (expected.max() - expected.min())
        np.testing.assert_allclose(one, expected, atol=1e-5)


def test_a_map_of_nothing_stays_nothing():
    assert not refined(torch.zeros(1, 12), torch.full((12, 12), 1 / 12), GRID, 0.4).any()
