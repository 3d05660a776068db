"""The image encoder against timm's, on shared random weights."""

from __future__ import annotations

import pytest
import timm
import torch

from pnp_core.methods.pnp.backbones.efficientnet import EfficientNetLite


def randomised(stride: int) -> torch.nn.Module:
    """timm's network with every batch norm unlike the identity."""
    torch.manual_seed(0)
    made = timm.create_model("tf_efficientnet_lite2", pretrained=False, output_stride=stride).eval()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                tensor.data.normal_(0, 0.2)
    return made


def folded(convolution: torch.nn.Conv2d, norm: torch.nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    return convolution.weight * factor[:, None, None, None], norm.bias - norm.running_mean * factor


@torch.no_grad()
def take_over(ours: EfficientNetLite, theirs: torch.nn.Module) -> None:
    """Fold timm's weights into ours, convolution by convolution in the order in which they are called."""
    convolutions = [m for m in theirs.modules() if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in theirs.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    targets = [m for m in ours.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == len(norms) == len(targets)
    for target, convolution, norm in zip(targets, convolutions, norms, strict=True):
        weight, bias = folded(convolution, norm)
        assert target.weight.shape == weight.shape
        target.weight.copy_(weight)
        target.bias.copy_(bias)


@pytest.mark.parametrize(("stride", "dilated"), [(32, False), (16, True)])
@pytest.mark.parametrize("sides", [(128, 128), (64, 160)])
def test_features_are_those_of_timms_network(stride, dilated, sides):
    theirs, ours = randomised(stride).double(), EfficientNetLite(1.1, 1.2, dilated).double().eval()
    take_over(ours, theirs)
    pixels = torch.randn(2, 3, *sides, dtype=torch.float64)
    with torch.no_grad():
        middle, deep = ours(pixels)
        expected = theirs.forward_features(pixels)
    assert deep.shape == (2, 1280, sides[0] // stride, sides[1] // stride)
    assert middle.shape == (2, ours.middle, sides[0] // 16, sides[1] // 16)
    torch.testing.assert_close(deep, expected, atol=1e-9, rtol=1e-9)
