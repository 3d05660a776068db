"""EfficientNet-Lite (Tan and Le 2019; the Lite variants without squeeze-and-excitation, ReLU6), for inference.

Batch norms are folded into the convolutions, which halves the number of operators and needs no statistics.
The last stride may be replaced by dilation (as in DeepLab): the same weights, a grid of twice the resolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import nn
from torch.nn import functional as F

# Of each stage: repeats, kernel, stride, expansion, channels (EfficientNet-B0's, which the others are scaled from).
_STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
STEM, HEAD = 32, 1280
MIDDLE = 4
"""The last stage of stride 16, whose channels `EfficientNetLite` gives too."""


def scaled(channels: int, width: float) -> int:
    """Channels at a width multiplier: the nearest multiple of 8 that is not more than a tenth below."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


class Convolution(nn.Conv2d):
    """A convolution with TensorFlow's `same` padding: what an even side lacks is added right and below."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """See `torch.nn.Conv2d`."""
        missing = (self.kernel_size[0] - 1) * self.dilation[0] + 1 - self.stride[0]
        if self.stride[0] > 1:
            input = F.pad(input, [missing // 2, missing - missing // 2] * 2)
            return F.conv2d(input, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        return F.conv2d(input, self.weight, self.bias, 1, missing // 2, self.dilation, self.groups)


class Block(nn.Module):
    """Inverted residual: widen, filter each channel, narrow; added to its input where the shapes are equal."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, expansion: int, dilation: int) -> None:
        super().__init__()
        wide = inner * expansion
        self.expand = nn.Conv2d(inner, wide, 1) if expansion > 1 else None
        self.depthwise = Convolution(wide, wide, kernel, stride, groups=wide, dilation=dilation)
        self.project = nn.Conv2d(wide, outer, 1)
        self.residual = stride == 1 and inner == outer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of (B, inner, h, w)."""
        wide = x if self.expand is None else F.hardtanh(self.expand(x), 0, 6)
        narrow = self.project(F.hardtanh(self.depthwise(wide), 0, 6))
        return x + narrow if self.residual else narrow


class EfficientNetLite(nn.Module):
    """The convolutions up to the pooling.

    Args:
        width, depth: multipliers of channels and repeats (Lite2: 1.1, 1.2).
        dilated: replace the last stride by dilation; features then have stride 16 instead of 32.
    """

    def __init__(self, width: float, depth: float, dilated: bool) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM, 3, 2)
        self.stages = nn.ModuleList(_stages(width, depth, dilated))
        self.head = nn.Conv2d(scaled(_STAGES[-1][-1], width), HEAD, 1)
        self.middle = scaled(_STAGES[MIDDLE][-1], width)
        """Channels of the first of the two feature maps."""

    def forward(
        self, pixels: Float[torch.Tensor, "B 3 H W"]
    ) -> tuple[Float[torch.Tensor, "B M h w"], Float[torch.Tensor, "B 1280 h2 w2"]]:
        """The last features of stride 16, and those that the classifier pools.

        Args:
            pixels: (RGB - 127) / 128; sides are multiples of the stride.
        """
        x = F.hardtanh(self.stem(pixels), 0, 6)
        for stage in self.stages[: MIDDLE + 1]:
            x = stage(x)
        middle = x
        for stage in self.stages[MIDDLE + 1 :]:
            x = stage(x)
        return middle, F.hardtanh(self.head(x), 0, 6)


def _stages(width: float, depth: float, dilated: bool) -> Iterator[nn.Sequential]:
    inner = STEM
    for number, (repeats, kernel, stride, expansion, channels) in enumerate(_STAGES):
        # The first and the last stage, and the stem, are not scaled in depth (the Lite variants' rule).
        count = repeats if number in (0, len(_STAGES) - 1) else math.ceil(repeats * depth)
        outer = scaled(channels, width)
        late = dilated and number > MIDDLE
        blocks = []
        for place in range(count):
            first = place == 0 and stride == 2
            # What follows the stride that is left out sees its neighbours twice as far away.
            dilation = 2 if late and not (number == MIDDLE + 1 and place == 0) else 1
            blocks.append(Block(inner, outer, kernel, 2 if first and not late else 1, expansion, dilation))
            inner = outer
        yield nn.Sequential(*blocks)
