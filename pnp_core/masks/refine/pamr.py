"""Pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020, section 3.3): each pixel takes on what neighbours of
its colour have, again and again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch.nn import functional as F

from pnp_core.devices import resolve_device
from pnp_core.masks.config import CrfConfig
from pnp_core.masks.refine import Refiner
from pnp_core.masks.refine.off import softmax

CHUNK = 2**25
"""Bytes of the channels that are smoothed together at most, besides the 8 numbers of each pixel and dilation; one
channel takes what it needs. What becomes of them does not depend on it."""
_AROUND = tuple((down, along) for down in (-1, 0, 1) for along in (-1, 0, 1))


class Pamr:
    """The refiner `pamr`, see `Smoother`."""

    def __init__(self, config: CrfConfig, device: torch.device) -> None:
        self._config, self._device = config, device

    def smooth(self, channels: Sequence[np.ndarray], guides: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Each image by itself."""
        steps, dilations = self._config.steps, self._config.dilations
        return [
            smooth(
                torch.from_numpy(np.ascontiguousarray(one, dtype=np.float32)).to(self._device),
                torch.tensor(np.ascontiguousarray(guide), dtype=torch.float32, device=self._device).permute(2, 0, 1),
                steps,
                dilations,
            )
            .cpu()
            .numpy()
            for one, guide in zip(channels, guides, strict=True)
        ]

    def __call__(self, scores: Sequence[np.ndarray], images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The softmax of smoothed scores."""
        return [softmax(one) for one in self.smooth(scores, images)]


def open_refiner(config: CrfConfig, device: str, threads: int) -> Refiner:
    """On a GPU where there is one."""
    return Pamr(config, resolve_device(device))


@torch.no_grad()
def smooth(
    channels: Float[torch.Tensor, "C H W"],
    guide: Float[torch.Tensor, "3 H W"],
    steps: int,
    dilations: tuple[int, ...],
    chunk: int = CHUNK,
) -> Float[torch.Tensor, "C H W"]:
    """Replace each pixel by the mean of its neighbours weighted by `neighbour_weights`, `steps` times.

    Channels do not know of each other, so they are smoothed a few at a time.

    Args:
        guide: the image, on the same device.
        dilations: distances of the neighbours in pixels; beyond the border lie its own pixels again.
        chunk: bytes of channels together.
    """
    weights, made = neighbour_weights(guide, dilations), torch.empty_like(channels)
    together = max(1, chunk // (4 * channels[0].numel())) if len(channels) else 1
    for at in range(0, len(channels), together):
        some = channels[at : at + together]
        for _ in range(steps):
            total = torch.zeros_like(some)
            for weight, shifted in zip(weights, _neighbours(some, dilations), strict=True):
                total.addcmul_(weight, shifted)
            some = total
        made[at : at + together] = some
    return made


def neighbour_weights(guide: Float[torch.Tensor, "3 H W"], dilations: tuple[int, ...]) -> Float[torch.Tensor, "N H W"]:
    """How much each of a pixel's 8 neighbours at each dilation counts; they sum to 1.

    The softmax of minus the mean over colours of |x - x_n| / (1e-8 + 0.1 sigma). sigma is the unbiased standard
    deviation of the colour over all neighbours and the pixel, which counts once for each dilation.
    """
    number = 9 * len(dilations)
    mean = sum(_neighbours(guide, dilations), len(dilations) * guide) / number
    squares = len(dilations) * (guide - mean) ** 2
    for shifted in _neighbours(guide, dilations):
        squares = squares + (shifted - mean) ** 2
    width = 1e-8 + 0.1 * (squares / (number - 1)).sqrt()
    far = torch.stack([((guide - shifted).abs() / width).mean(0) for shifted in _neighbours(guide, dilations)])
    return (-far).softmax(0)


def _neighbours(values: torch.Tensor, dilations: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """The values (C, H, W) of each pixel's neighbours, one neighbour after the other."""
    height, width = values.shape[1:]
    edge = max(dilations)
    padded = F.pad(values[None], (edge, edge, edge, edge), mode="replicate")[0]
    for dilation in dilations:
        for down, along in _AROUND:
            if (down, along) != (0, 0):
                top, left = edge + down * dilation, edge + along * dilation
                yield padded[:, top : top + height, left : left + width]
