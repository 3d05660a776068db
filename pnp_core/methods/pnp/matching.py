"""The backbone's own match score of many captions: no gradient."""

from __future__ import annotations

import torch
from jaxtyping import Float

from pnp_core.methods.pnp.backbones.base import Backbone
from pnp_core.methods.pnp.prompts import Prompts

CAPTIONS_AT_ONCE = 32
"""Captions matched in one pass, which bounds memory whatever the size of the vocabulary."""


@torch.no_grad()
def match_probabilities(
    backbone: Backbone, image_tokens: Float[torch.Tensor, "B ... D"], prompts: Prompts
) -> Float[torch.Tensor, "B C"]:
    """How probably each picture matches each caption, in [0, 1]."""
    found = []
    for start in range(0, len(prompts.ids), CAPTIONS_AT_ONCE):
        part = slice(start, start + CAPTIONS_AT_ONCE)
        ids, mask = (t[part].to(backbone.device) for t in (prompts.ids, prompts.mask))
        batch = len(image_tokens)
        match = backbone.match(image_tokens, ids.expand(batch, -1, -1), mask.expand(batch, -1, -1), layers=())
        found.append(match.itm)
    return torch.cat(found, dim=1)
