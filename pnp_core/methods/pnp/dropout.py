"""Salience DropOut: hide the most salient patches and look again (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float

from pnp_core.methods.pnp.backbones.base import Backbone
from pnp_core.methods.pnp.config import DropoutConfig
from pnp_core.methods.pnp.layers import Kind
from pnp_core.methods.pnp.prompts import PromptBatch
from pnp_core.methods.pnp.salience import ClassSalience, salience


@dataclass(frozen=True)
class DropoutSalience:
    """Salience of all drop iterations.

    Attributes:
        maps: 0 at the patches hidden in that iteration.
        dropped: the patches hidden in each iteration; none in the first.
        itm: match probabilities of the first, unhidden pass.
    """

    maps: Float[torch.Tensor, "B K C P"]
    dropped: Bool[torch.Tensor, "B K P"]
    itm: Float[torch.Tensor, "B C"]


def hide_patches(
    pixels: Float[torch.Tensor, "B 3 H W"], dropped: Bool[torch.Tensor, "B P"], patch_size: int
) -> Float[torch.Tensor, "B 3 H W"]:
    """Zero the pixels of dropped patches; zero in normalised space is the mean colour."""
    down, across = (side // patch_size for side in pixels.shape[-2:])
    keep = (~dropped).view(-1, 1, down, across).to(pixels.dtype)
    return pixels * keep.repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)


def _ranked(rank: torch.Tensor, dropped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches not dropped yet, most salient first; ties go to the lower index on every device."""
    open_rank = rank.masked_fill(dropped, -torch.inf)
    return torch.sort(open_rank, dim=1, descending=True, stable=True)


def _drop_first(order: torch.Tensor, dropped: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
    """Add the first `number` (B,) patches of each row's order to the dropped ones."""
    place = torch.arange(order.shape[1], device=order.device)
    chosen = torch.zeros_like(dropped).scatter(1, order, place < number[:, None])
    return dropped | chosen


def drop_count(rank: torch.Tensor, dropped: torch.Tensor, amount: float) -> torch.Tensor:
    """Drop a fixed number of patches (authors: 10)."""
    _, order = _ranked(rank, dropped)
    left = (~dropped).sum(1)
    return _drop_first(order, dropped, left.clamp(max=int(amount)))


def drop_fraction(rank: torch.Tensor, dropped: torch.Tensor, amount: float) -> torch.Tensor:
    """Drop a share of the patches that are left, rounded half up (paper: 0.5)."""
    _, order = _ranked(rank, dropped)
    left = (~dropped).sum(1)
    return _drop_first(order, dropped, (left * amount + 0.5).floor().long())


def drop_mass(rank: torch.Tensor, dropped: torch.Tensor, amount: float) -> torch.Tensor:
    """Drop the fewest patches that hold a share of the salience that is left."""
    ordered, order = _ranked(rank, dropped)
    mass = ordered.clamp(min=0).cumsum(1)
    before = torch.nn.functional.pad(mass[:, :-1], (1, 0))
    number = ((before < amount * mass[:, -1:]) & (ordered > 0)).sum(1)
    return _drop_first(order, dropped, number)


Strategy = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
STRATEGIES: dict[str, Strategy] = {"count": drop_count, "fraction": drop_fraction, "mass": drop_mass}
"""(rank (B, P), dropped (B, P), amount) -> dropped (B, P) of the next iteration."""


def salience_dropout(
    backbone: Backbone,
    pixels: Float[torch.Tensor, "B 3 H W"],
    prompts: PromptBatch,
    config: DropoutConfig,
    layer: int,
    head: int,
    kind: Kind = "gradcam",
    image_tokens: Float[torch.Tensor, "B ... D"] | None = None,
) -> DropoutSalience:
    """Run K passes; after each but the last hide its most salient patches.

    The image encoder runs once per iteration. The choice after the last pass would be used by
    nothing and is not made.

    Args:
        pixels: normalised model pixels on the backbone's device.
        image_tokens: of those pixels, where they are known already.

    Raises:
        LayerRangeError: no such layer or head.
    """
    choose = STRATEGIES[config.strategy]
    patches = backbone.grid[0] * backbone.grid[1]
    dropped = torch.zeros(len(pixels), patches, dtype=torch.bool, device=pixels.device)
    maps, hidden = [], []
    first: ClassSalience | None = None
    for iteration in range(config.iterations):
        if iteration or image_tokens is None:
            image_tokens = backbone.encode_image(hide_patches(pixels, dropped, backbone.patch_size))
        current = salience(backbone, image_tokens, prompts, layer, head, kind)
        first = first or current
        maps.append(current.maps.masked_fill(dropped[:, None], 0))
        hidden.append(dropped)
        if iteration < config.iterations - 1:
            dropped = choose(current.rank, dropped, config.amount)
    assert first is not None
    return DropoutSalience(torch.stack(maps, 1), torch.stack(hidden, 1), first.itm)
