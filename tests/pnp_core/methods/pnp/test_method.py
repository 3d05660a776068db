"""What the model is given of an image."""

import numpy as np
from PIL import Image

from pnp_core.methods.pnp.backbones.base import PIXEL_MEAN, PIXEL_STD
from pnp_core.methods.pnp.loaded import model_pixels


def test_model_pixels_are_the_normalised_values_to_the_last_bit():
    image = np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8)
    small = np.asarray(Image.fromarray(image).resize((20, 28), Image.Resampling.BICUBIC), dtype=np.float32)
    expected = (small / 255 - np.float32(PIXEL_MEAN)) / np.float32(PIXEL_STD)
    found = model_pixels(image, (28, 20)).numpy()
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    assert np.array_equal(found, expected.transpose(2, 0, 1))
