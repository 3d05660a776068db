"""Fully connected CRF with Gaussian edges (Kraehenbuehl and Koltun 2011), by pydensecrf."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from pydensecrf.densecrf import DenseCRF2D

from pnp_core.masks.config import CrfConfig
from pnp_core.masks.refine import Refiner, one_by_one
from pnp_core.masks.refine.off import softmax


def open_refiner(config: CrfConfig, device: str, threads: int) -> Refiner:
    """By the CPU, whatever the device."""
    return one_by_one(refine, config)


def refine(
    scores: Float[np.ndarray, "C H W"], image: UInt8[np.ndarray, "H W 3"], config: CrfConfig
) -> Float[np.ndarray, "C H W"]:
    """Mean-field inference from unaries -log softmax(scores) on the original RGB.

    Args:
        scores: in [0, 1], image pixels.
        image: the same H and W.

    Returns:
        Probabilities that sum to 1 over the channels.
    """
    number, height, width = scores.shape
    if number == 1:
        return np.ones_like(scores)
    unary = -np.log(softmax(scores)).reshape(number, -1)
    crf = DenseCRF2D(width, height, number)
    crf.setUnaryEnergy(np.ascontiguousarray(unary, dtype=np.float32))
    crf.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        rgbim=np.array(image, order="C"),  # pydensecrf wants a writable buffer
        compat=config.bilateral_compat,
    )
    return np.array(crf.inference(config.iterations)).reshape(number, height, width)
