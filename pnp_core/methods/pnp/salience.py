"""Salience of each class for each patch: cross-attention times the gradient of the match score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float

from pnp_core.errors import LayerRangeError
from pnp_core.methods.pnp.backbones.base import Backbone, Match
from pnp_core.methods.pnp.prompts import PromptBatch

Kind = Literal["gradcam", "attention"]


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


def check_layer_head(layer: int, head: int, layers: int, heads: int) -> None:
    """Refuse a (layer, head) the model does not have.

    Raises:
        LayerRangeError: with the range there is.
    """
    if not 0 <= layer < layers:
        raise LayerRangeError(f"layer {layer} is out of range: the model has layers 0 to {layers - 1}")
    if not 0 <= head < heads:
        raise LayerRangeError(f"head {head} is out of range: the model has heads 0 to {heads - 1}")


def useful_layers(layers: int, kind: Kind) -> range:
    """Layers whose salience can differ from zero.

    The gradient of the last layer is exactly zero for class tokens, because the match head reads
    [ENC] only; its attention is not.

    >>> list(useful_layers(3, "gradcam")), list(useful_layers(3, "attention"))
    ([0, 1], [0, 1, 2])
    """
    return range(layers if kind == "attention" else layers - 1)


def check_salient(layer: int, layers: int, kind: Kind) -> None:
    """Refuse a layer whose salience is zero.

    Raises:
        LayerRangeError: with the layers there are.
    """
    if layer not in useful_layers(layers, kind):
        raise LayerRangeError(
            f"layer {layer} is the last one: its salience is zero, because the match score reads no "
            f"class token after it; use layers 0 to {layers - 2}"
        )


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
