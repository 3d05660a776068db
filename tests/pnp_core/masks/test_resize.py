import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pnp_core.masks.grids import half_pixel_matrix
from pnp_core.masks.resize import resize_bytes, there_and_back


@pytest.mark.parametrize("sizes", [((375, 500), (336, 448)), ((333, 500), (336, 505)), ((96, 70), (336, 245))])
def test_bytes_are_those_of_opencv(sizes):
    source, size = sizes
    image = np.random.default_rng(0).integers(0, 256, (*source, 3), dtype=np.uint8)
    theirs = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    made = resize_bytes(image, size)
    assert np.abs(made.astype(int) - theirs).max() <= 1
    assert (made == theirs).mean() > 0.997, "the last bit of a place now and then"


def test_the_same_size_is_the_same_picture():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert resize_bytes(image, (2, 4)) is image
    assert np.array_equal(there_and_back(image, (2, 4)), image)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))
def test_half_pixel_matrices_interpolate_as_torch_does(size, grid, columns):
    values = torch.randn(1, 1, grid, columns, generator=torch.Generator().manual_seed(size))
    wanted = torch.nn.functional.interpolate(values, size=(size, columns), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(half_pixel_matrix(size, grid) @ values[0, 0].numpy(), wanted[0, 0].numpy(), atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(1, 30)] * 2), st.tuples(*[st.integers(1, 30)] * 2))
def test_any_picture_goes_to_any_size_and_keeps_its_range(source, size):
    image = np.random.default_rng(source[0]).integers(60, 200, (*source, 3), dtype=np.uint8)
    made, back = resize_bytes(image, size), there_and_back(image, size)
    assert made.shape == (*size, 3)
    assert back.shape == image.shape
    assert made.min() >= image.min() - 1
    assert back.max() <= image.max() + 1
