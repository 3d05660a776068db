"""Salience of each class for each patch: cross-attention times the gradient of the match score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float

from pnp_core.methods.pnp.backbones.base import Backbone, Match
from pnp_core.methods.pnp.layers import Kind, check_layer_head
from pnp_core.methods.pnp.prompts import PromptBatch


@dataclass(frozen=True)
class ClassSalience:
    """Salience of one pass, for one (layer, head).

    Attributes:
        maps: per class, the mean over its tokens; >= 0, not normalised.
        rank: summed over the tokens of all classes, what DropOut ranks patches by.
        itm: match probability in [0, 1] of the caption that names the class.
    """

    maps: Float[torch.Tensor, "B C P"]
    rank: Float[torch.Tensor, "B P"]
    itm: Float[torch.Tensor, "B C"]


def token_salience(match: Match, prompts: PromptBatch, kind: Kind) -> list[Float[torch.Tensor, "B H NT P"]]:
    """Salience per token and patch, for every recorded layer (paper equations 2 and 3).

    S = P * max(dTarget/dP, 0), Target = the sum of the raw match logits of all real captions.
    Summing keeps pictures and captions independent of each other.

    Args:
        kind: `attention` leaves the gradient out.

    Returns:
        One tensor per layer of the match, image-CLS column removed.
    """
    if kind == "attention":
        return [p.detach()[..., 1:] for p in match.probabilities]
    target = match.logits[prompts.captions].sum()
    gradients = torch.autograd.grad(target, match.probabilities, allow_unused=True)
    maps = []
    for probabilities, gradient in zip(match.probabilities, gradients, strict=True):
        # The last layer's cross-attention of non-[ENC] tokens does not reach the score.
        gradient = torch.zeros_like(probabilities) if gradient is None else gradient
        maps.append((probabilities.detach() * gradient.clamp(min=0))[..., 1:])
    return maps


def class_salience(
    tokens: Float[torch.Tensor, "B NT P"], itm: Float[torch.Tensor, "B N"], prompts: PromptBatch
) -> ClassSalience:
    """Average token maps over each class's tokens; tokens of no class and padding count nowhere."""
    members = prompts.class_tokens.flatten(2).to(tokens.dtype)
    counts = members.sum(-1, keepdim=True).clamp(min=1)
    return ClassSalience(
        maps=(members / counts) @ tokens,
        rank=(members.sum(1, keepdim=True) @ tokens)[:, 0],
        itm=itm.gather(1, prompts.caption_of_class),
    )


def salience(
    backbone: Backbone,
    image_tokens: Float[torch.Tensor, "B ... D"],
    prompts: PromptBatch,
    layer: int,
    head: int,
    kind: Kind = "gradcam",
) -> ClassSalience:
    """Class salience of one (layer, head).

    Raises:
        LayerRangeError: no such layer or head.
    """
    check_layer_head(layer, head, backbone.layers, backbone.heads)
    match = backbone.match(image_tokens, prompts.ids, prompts.mask, [layer])
    (tokens,) = token_salience(match, prompts, kind)
    return class_salience(tokens[:, head], match.itm, prompts)


def all_salience(
    backbone: Backbone,
    image_tokens: Float[torch.Tensor, "B ... D"],
    prompts: PromptBatch,
    layers: Sequence[int],
    kind: Kind = "gradcam",
) -> tuple[Float[torch.Tensor, "B L H C P"], Float[torch.Tensor, "B C"]]:
    """Class salience of every head of some layers from a single pass, for the tuning cache.

    Returns:
        The class maps as `ClassSalience.maps`, and the match probabilities.

    Raises:
        LayerRangeError: no such layer.
    """
    for layer in layers:
        check_layer_head(layer, 0, backbone.layers, backbone.heads)
    match = backbone.match(image_tokens, prompts.ids, prompts.mask, list(layers))
    tokens = torch.stack(token_salience(match, prompts, kind), 1)
    members = prompts.class_tokens.flatten(2).to(tokens.dtype)
    share = members / members.sum(-1, keepdim=True).clamp(min=1)
    return share[:, None, None] @ tokens, match.itm.gather(1, prompts.caption_of_class)
