from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pnp_core.errors import CrfInputError
from pnp_core.inputs.images import decode_image
from pnp_core.masks.config import CrfConfig
from pnp_core.masks.refine.lattice import build_lattice
from pnp_core.masks.refine.tensor_crf import refine_batch
from tests.pnp_core.masks.refine.test_crf import mean_field, refined

CPU = torch.device("cpu")
PHOTOGRAPHS = sorted((Path(__file__).parents[4] / "pnp_core" / "_photographs").glob("*.jpg"))


def ragged_scores(number: int, height: int, width: int, seed: int) -> np.ndarray:
    """Channels in [0, 1] of blocks, as coarse as a patch grid."""
    coarse = np.random.default_rng(seed).random((number, -(-height // 16), -(-width // 16)), dtype=np.float32)
    return coarse.repeat(16, 1).repeat(16, 2)[:, :height, :width]


def drawn_image(height: int, width: int, colours: int, seed: int) -> np.ndarray:
    """Stripes of some colours; a single one is a constant picture."""
    rng = np.random.default_rng(seed)
    palette = rng.integers(0, 256, (colours, 3), dtype=np.uint8)
    y, x = np.mgrid[0:height, 0:width]
    return palette[(x // 5 + y // 7) % colours]


@pytest.mark.parametrize("labels", [2, 5, 21])
def test_photographs_get_the_labels_of_pydensecrf(labels):
    differing = pixels = 0
    for path in PHOTOGRAPHS[:3]:
        image = np.ascontiguousarray(decode_image(path.read_bytes(), 10**8).pixels[::2, ::2])
        scores = ragged_scores(labels, *image.shape[:2], seed=labels)
        expected = refined("dense", scores, image, CrfConfig())
        found = refined("torch", scores, image, CrfConfig())
        differing += int((found.argmax(0) != expected.argmax(0)).sum())
        pixels += expected[0].size
        assert (np.abs(found - expected) > 1e-3).mean() < 1e-5
    assert differing / pixels <= 1e-4


@given(
    height=st.integers(1, 64), width=st.integers(1, 64), labels=st.integers(1, 30), colours=st.sampled_from([1, 2, 7]),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_any_size_and_number_of_labels_agrees_with_pydensecrf(height, width, labels, colours, seed):
    scores = np.random.default_rng(seed).random((labels, height, width), dtype=np.float32)
    image = drawn_image(height, width, colours, seed)
    config = CrfConfig(iterations=3)
    found = refined("torch", scores, image, config)
    expected = refined("dense", scores, image, config)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize(
    "widths",
    [
        {"bilateral_srgb": 0.5, "bilateral_sxy": 2},  # vertices take numbers of 64 bits
        {"bilateral_srgb": 40, "gaussian_sxy": 0.7},
        {"gaussian_compat": 0, "bilateral_compat": 3, "iterations": 1},
    ],
)
def test_other_parameters_agree_with_pydensecrf(widths):
    image = decode_image(PHOTOGRAPHS[2].read_bytes(), 10**8).pixels[:96, :120].copy()
    scores, config = ragged_scores(4, 96, 120, seed=0), CrfConfig(**widths)
    found, expected = (refined(name, scores, image, config) for name in ("torch", "dense"))
    np.testing.assert_allclose(found, expected, atol=1e-3)


@given(height=st.integers(1, 12), width=st.integers(1, 12), labels=st.integers(2, 4), seed=st.integers(0, 1000))
def test_the_smallest_pictures_follow_the_mean_field_as_closely_as_pydensecrf(height, width, labels, seed):
    scores = np.random.default_rng(seed).random((labels, height, width), dtype=np.float32)
    image = drawn_image(height, width, 2, seed)
    config = CrfConfig(iterations=2)
    exact = mean_field(scores, image, config)
    found, dense = (np.abs(refined(name, scores, image, config) - exact).max() for name in ("torch", "dense"))
    assert found <= dense + 1e-3


def test_a_batch_of_unequal_pictures_is_each_picture_alone_byte_for_byte():
    shapes = [(3, 20, 33), (2, 1, 40), (3, 41, 17), (1, 5, 5), (3, 20, 33)]
    scores = [ragged_scores(*shape, seed=n) for n, shape in enumerate(shapes)]
    images = [drawn_image(*shape[1:], colours=4, seed=n) for n, shape in enumerate(shapes)]
    alone = [refine_batch([s], [p], CrfConfig(), CPU)[0] for s, p in zip(scores, images, strict=True)]
    for chunk in (0, 10**6, 10**9):
        together = refine_batch(scores, images, CrfConfig(), CPU, chunk)
        assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_the_same_bytes_for_any_number_of_threads():
    scores, image = ragged_scores(4, 90, 120, seed=0), drawn_image(90, 120, 5, seed=0)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            found.append(refine_batch([scores], [image], CrfConfig(), CPU)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_scores_may_be_tensors():
    scores, image = ragged_scores(3, 9, 11, seed=0), drawn_image(9, 11, 3, seed=0)
    (found,) = refine_batch([torch.from_numpy(scores)], [image], CrfConfig(), CPU)
    np.testing.assert_array_equal(found.numpy(), refined("torch", scores, image, CrfConfig()))


def test_every_vertex_knows_its_neighbours():
    features = torch.rand(2, 500, generator=torch.Generator().manual_seed(0)) * 9
    lattice = build_lattice(features, [9, 9], torch.zeros(500, dtype=torch.long), 1)
    number = len(lattice.starts) - 1
    assert number == len(lattice.vertices.unique())
    for before, after in lattice.neighbours.long():
        has = torch.nonzero(after[:number] < number)[:, 0]
        assert len(has) > number / 2
        assert torch.equal(before[after[has]], has)


@pytest.mark.parametrize(
    ("shape", "image", "message"),
    [
        ((2, 3, 4), (4, 3, 3), r"need 3 x 4 pixels of RGB bytes, not \(4, 3, 3\) uint8"),
        ((0, 3, 4), (3, 4, 3), "at least one of each"),
        ((2, 0, 4), (0, 4, 3), "at least one of each"),
        ((3, 4), (3, 4, 3), "must have channels, rows and columns"),
    ],
)
def test_scores_and_picture_that_do_not_fit_are_told(shape, image, message):
    with pytest.raises(CrfInputError, match=message):
        refine_batch([np.zeros(shape, np.float32)], [np.zeros(image, np.uint8)], CrfConfig(), CPU)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("labels", [1, 2])
def test_scores_that_are_no_numbers_are_told(value, labels):
    scores = np.zeros((labels, 3, 4), np.float32)
    scores[0, 1, 1] = value
    with pytest.raises(CrfInputError, match="NaN or infinite"):
        refine_batch([scores], [np.zeros((3, 4, 3), np.uint8)], CrfConfig(), CPU)


def test_pictures_without_scores_are_told():
    with pytest.raises(CrfInputError, match="scores of 0 pictures and 1 pictures"):
        refine_batch([], [np.zeros((3, 4, 3), np.uint8)], CrfConfig(), CPU)


def test_no_picture_is_no_result():
    assert refine_batch([], [], CrfConfig(), CPU) == []


@pytest.mark.parametrize("bandwidth", [{"bilateral_srgb": 1e-6}, {"gaussian_sxy": 1e-6}, {"gaussian_sxy": 1e-9}])
def test_bandwidths_too_small_for_the_lattice_are_told(bandwidth):
    config = CrfConfig(**bandwidth)
    with pytest.raises(CrfInputError, match="standard deviations are too many"):
        refine_batch([np.zeros((2, 50, 50), np.float32)], [np.zeros((50, 50, 3), np.uint8)], config, CPU)
