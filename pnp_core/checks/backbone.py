"""Whether a backbone can run here, and what it will cost: weights, memory, time per picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import torch

from pnp_core.bundled import BUNDLED
from pnp_core.checks.cost import Cost, peak_memory, say_device
from pnp_core.devices import resolve_device
from pnp_core.errors import CheckpointError
from pnp_core.methods.pnp.backbones import backbone_card, load_backbone
from pnp_core.methods.pnp.backbones.cards import BackboneCard
from pnp_core.methods.pnp.backbones.checkpoint import is_offline, locate_checkpoint
from pnp_core.methods.pnp.config import BackboneConfig, CaptionConfig
from pnp_core.methods.pnp.prompts import build_prompts, stack_prompts
from pnp_core.methods.pnp.salience import salience

REACHED = 0.75
"""Share of a large matrix product's rate that a pass reaches (benchmarks/backbones.py)."""


@dataclass(frozen=True)
class Diagnosis:
    """What `pnp-ovss doctor` says.

    Attributes:
        problem: why the weights are not at hand, or cannot be used like this; None when they can.
        folder: where they are, None when they are not at hand.
        expected: from the published model's size and this device's speed at matrix products; None of the bundled one.
        measured: by one picture, when the weights are at hand.
    """

    backbone: str
    checkpoint: str
    image_size: tuple[int, int]
    device: str
    offline: bool
    problem: str | None
    folder: str | None
    expected: Cost | None
    measured: Cost | None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def diagnose(config: BackboneConfig, device: str = "auto") -> Diagnosis:
    """Look for the weights, and measure with them or estimate without.

    Raises:
        UnknownNameError: no such backbone.
        UsageError: no such device.
    """
    card, place = backbone_card(config.name), resolve_device(device)
    problem, folder, measured = None, None, None
    try:
        checkpoint = locate_checkpoint(config)
        folder = str(checkpoint.folder)
        measured = _measure(config, checkpoint, device, place)
    except CheckpointError as error:
        problem = str(error)
    return Diagnosis(
        backbone=config.name,
        checkpoint=config.checkpoint,
        image_size=config.sides,
        device=say_device(place),
        offline=is_offline(),
        problem=problem,
        folder=folder,
        expected=None if config.checkpoint in BUNDLED else expect(card, config.sides, matrix_rate(place)),
        measured=measured,
    )


def _measure(config: BackboneConfig, checkpoint: Any, device: str, place: torch.device) -> Cost:
    frozen: Any = config  # hashable, which type checkers do not see
    backbone = load_backbone(frozen, checkpoint, device)
    prompts = stack_prompts([build_prompts(["car"], CaptionConfig(), backbone)]).to(place)
    image = torch.zeros(1, 3, *config.sides, device=place)
    seconds = []
    for _ in range(2):  # the first one warms up
        start = perf_counter()
        maps = salience(backbone, backbone.encode_image(image), prompts, 0, 0).maps
        maps.sum().item()  # waits for the device
        seconds.append(perf_counter() - start)
    return Cost(min(seconds), peak_memory(place))


def matrix_rate(device: torch.device) -> float:
    """Floating-point operations per second of a large float32 matrix product on a device."""
    side = 2048
    a = torch.randn(side, side, device=device)
    seconds = []
    for _ in range(8):
        start = perf_counter()
        (a @ a)[0, 0].item()
        seconds.append(perf_counter() - start)
    return 2 * side**3 / min(seconds)


def operations(card: BackboneCard, sides: tuple[int, int]) -> float:
    """Floating-point operations of a pass: the image encoder, and forward and backward of what the gradient needs.

    >>> 0.3e12 < operations(backbone_card("blip"), (336, 336)) < 0.4e12
    True
    """
    shape = card.shape
    tokens = 1 + sides[0] // card.patch_size * (sides[1] // card.patch_size)
    width = shape.vision_width
    block = 24 * tokens * width**2 + 4 * tokens**2 * width
    forward = shape.vision_layers * block
    # A backward costs twice a forward, and goes down to the wanted layer.
    above = card.layers - 1 - card.layer
    keys_and_values = 4 * tokens * width * shape.text_width
    cross = (card.layers + 2 * above) * keys_and_values
    if shape.carries_image:  # but for the last layer
        cross += (card.layers - 1 + 2 * max(above - 1, 0)) * block
    return forward + cross


def expect(card: BackboneCard, sides: tuple[int, int], rate: float) -> Cost:
    """Cost of the published model, float32, on a device with this rate of operations per second."""
    tokens = 1 + sides[0] // card.patch_size * (sides[1] // card.patch_size)
    weights = card.shape.parameters * 1e6 * 4
    kept = tokens * card.shape.vision_width * 4 * (12 + 8 * card.layers * card.shape.carries_image)
    return Cost(operations(card, sides) / (REACHED * rate), (weights + kept) / 1e9 + 0.5)
