"""The backbone's own match score of many captions: no gradient."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int

from pnp_core.methods.pnp.backbones.base import Backbone
from pnp_core.methods.pnp.prompts import Prompts

CAPTIONS_AT_ONCE = 32
"""Captions matched in one pass, which bounds memory whatever the size of the vocabulary."""


@torch.no_grad()
def match_probabilities(
    backbone: Backbone, image_tokens: Float[torch.Tensor, "B ... D"], prompts: Prompts
) -> Float[torch.Tensor, "B C"]:
    """How probably each picture matches each caption, in [0, 1]."""
    batch = len(image_tokens)
    return match_captions(backbone, image_tokens, prompts.ids.expand(batch, -1, -1), prompts.mask.expand(batch, -1, -1))


@torch.no_grad()
def match_captions(
    backbone: Backbone,
    image_tokens: Float[torch.Tensor, "B ... D"],
    ids: Int[torch.Tensor, "B N T"],
    mask: Bool[torch.Tensor, "B N T"],
) -> Float[torch.Tensor, "B N"]:
    """How probably each picture matches each of its own captions, in [0, 1]."""
    found = []
    for start in range(0, ids.shape[1], CAPTIONS_AT_ONCE):
        part = slice(start, start + CAPTIONS_AT_ONCE)
        own, real = (t[:, part].to(backbone.device) for t in (ids, mask))
        found.append(backbone.match(image_tokens, own, real, layers=()).itm)
    return torch.cat(found, dim=1)
