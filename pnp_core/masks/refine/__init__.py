"""Refiners of scores by name. Adding one is a module with `open_refiner` and one line here (`pnp_core.registry`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from pnp_core.masks.config import CrfConfig
from pnp_core.registry import Registry

Refiner = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[np.ndarray]]
"""(scores (C, H, W) in [0, 1] of some images, the images (H, W, 3) uint8 RGB) -> probabilities (C, H, W) of each.
What an image's become does not depend on those beside it."""


@runtime_checkable
class Smoother(Protocol):
    """A refiner that is a weighted mean over pixels, so that it can also be had of scores that probabilities are made
    of afterwards.
    """

    def smooth(self, channels: Sequence[np.ndarray], guides: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Channels (C, H, W) of some images, of any range, smoothed along the images (H, W, 3), of any range too."""
        ...

    def __call__(self, scores: Sequence[np.ndarray], images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As a `Refiner`: the softmax of smoothed scores."""
        ...


REFINERS: Registry[Callable[[CrfConfig, str, int], Refiner]] = Registry(
    "CRF",
    "pnp_ovss.refiners",
    {
        "fast": "pnp_core.masks.refine.fast_crf:open_refiner",
        "dense": "pnp_core.masks.refine.dense_crf:open_refiner",
        "torch": "pnp_core.masks.refine.tensor_crf:open_refiner",
        "pamr": "pnp_core.masks.refine.pamr:open_refiner",
        "off": "pnp_core.masks.refine.off:open_refiner",
    },
)
"""(parameters, device, threads) -> refiner. What they are made of (torch, pydensecrf) takes seconds to import."""

_IMAGENET = (122.675, 116.669, 104.008)
"""Mean colour, red, green, blue."""

ON_GPU = frozenset({"torch", "pamr"})
"""Those that are quicker with a GPU."""


def open_refiner(config: CrfConfig, device: str = "auto", threads: int = 1) -> Refiner:
    """The refiner of that name.

    Args:
        device: where its arithmetic is done, if it has a choice: `auto`, `cpu`, `cuda:1` ...
        threads: of the CPU, if it can use several; results do not depend on them.

    Raises:
        UnknownNameError: no such refiner.
        UsageError: there is no such device.
    """
    refine = REFINERS.get(config.name)(config, device, threads)
    if config.guide == "image" or isinstance(refine, Smoother):
        return refine
    return lambda scores, images: refine(scores, [wrapped(image) for image in images])


def wrapped(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """An image less the mean colour of ImageNet, cut to whole numbers; what is below 0 begins at 255 again.

    The code of CaR means the first and does the second; its CRF takes equal colours for far apart and the other way
    round.

    >>> wrapped(np.array([[[122, 116, 105], [130, 110, 104]]], np.uint8)).tolist()
    [[[0, 0, 0], [7, 250, 0]]]
    """
    return np.trunc(image - np.array(_IMAGENET, dtype=np.float32)).astype(np.int32).astype(np.uint8)


def one_by_one(refine: Callable[[np.ndarray, np.ndarray, CrfConfig], np.ndarray], config: CrfConfig) -> Refiner:
    """A refiner that takes one image after the other."""
    return lambda scores, images: [refine(one, image, config) for one, image in zip(scores, images, strict=True)]
