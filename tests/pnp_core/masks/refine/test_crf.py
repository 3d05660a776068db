import numpy as np
import pytest

from pnp_core.errors import UnknownNameError
from pnp_core.masks.config import CrfConfig
from pnp_core.masks.refine import open_refiner


def refined(name: str, scores: np.ndarray, image: np.ndarray, config: CrfConfig) -> np.ndarray:
    refine = open_refiner(config.model_copy(update={"name": name}), "cpu")
    return refine([scores], [image])[0]


def test_off_is_the_softmax():
    scores = np.array([[[0.0]], [[1.0]]])
    assert refined("off", scores, np.zeros((1, 1, 3), np.uint8), CrfConfig())[1, 0, 0] == pytest.approx(
        np.e / (1 + np.e)
    )


def mean_field(scores: np.ndarray, image: np.ndarray, config: CrfConfig) -> np.ndarray:
    """Dense CRF mean field by brute force over all pixel pairs, symmetric normalisation, Potts."""
    number, height, width = scores.shape
    y, x = np.mgrid[0:height, 0:width].reshape(2, -1).astype(float)
    colour = image.reshape(-1, 3).astype(float)
    apart = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    shade = ((colour[:, None] - colour) ** 2).sum(-1)
    kernels = [
        (np.exp(-apart / (2 * config.gaussian_sxy**2)), config.gaussian_compat),
        (
            np.exp(-apart / (2 * config.bilateral_sxy**2) - shade / (2 * config.bilateral_srgb**2)),
            config.bilateral_compat,
        ),
    ]
    mixed = np.zeros_like(apart)
    for kernel, weight in kernels:
        norm = 1 / np.sqrt(kernel.sum(1) + 1e-20)
        mixed += weight * norm[:, None] * kernel * norm
    raised = np.exp(scores.reshape(number, -1))
    unary = np.log(raised / raised.sum(0))
    q = raised / raised.sum(0)
    for _ in range(config.iterations):
        q = np.exp(unary + q @ mixed)
        q /= q.sum(0)
    return q.reshape(number, height, width)


@pytest.mark.parametrize("name", ["dense", "fast", "torch"])
def test_agrees_with_brute_force_mean_field(name):
    rng = np.random.default_rng(0)
    image = np.zeros((12, 14, 3), np.uint8)
    image[:, 7:] = 200
    scores = rng.random((3, 12, 14)).astype(np.float32)
    config = CrfConfig(iterations=5)
    found = refined(name, scores, image, config)
    expected = mean_field(scores, image, config)
    # The permutohedral lattice approximates the Gaussians; labels agree, probabilities nearly.
    assert (found.argmax(0) == expected.argmax(0)).mean() > 0.95
    assert np.abs(found - expected).mean() < 0.05


@pytest.mark.parametrize("name", ["dense", "fast", "torch"])
def test_snaps_a_ragged_mask_to_the_edge_of_the_object(name):
    rng = np.random.default_rng(1)
    image = np.full((40, 40, 3), 30, np.uint8)
    image[10:30, 10:30] = 220
    truth = np.zeros((40, 40), bool)
    truth[10:30, 10:30] = True
    noisy = np.where(truth, 0.7, 0.3) + rng.normal(0, 0.35, (40, 40))
    scores = np.stack([1 - noisy, noisy]).clip(0, 1).astype(np.float32)
    before = (scores.argmax(0) == truth).mean()
    after = (refined(name, scores, image, CrfConfig()).argmax(0) == truth).mean()
    assert before < 0.9
    assert after > 0.99


@pytest.mark.parametrize("name", ["dense", "fast", "torch"])
def test_probabilities_sum_to_one(name):
    scores = np.random.default_rng(2).random((4, 9, 11)).astype(np.float32)
    found = refined(name, scores, np.zeros((9, 11, 3), np.uint8), CrfConfig())
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_unknown_crf_names_those_there_are():
    with pytest.raises(UnknownNameError, match="unknown CRF 'dence'; did you mean 'dense'"):
        open_refiner(CrfConfig(name="dence"))
