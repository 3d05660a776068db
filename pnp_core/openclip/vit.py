"""The vision transformer of a CLIP, open at its last block: dense methods put another one in its place."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch.nn import functional as F

from pnp_core.errors import UsageError
from pnp_core.openclip.positions import Grid, Positions, by_scale_factor

Dtype = Literal["float32", "bfloat16", "float16"]
"""Precision of an image encoder."""


@dataclass(frozen=True)
class Trunk:
    """What the last block begins with.

    Attributes:
        tokens: (B, 1 + P + n, D), CLS, the P = gh gw patches row by row, n prompt tokens.
        grid: gh, gw.
        attentions: of every block but the last (B, T, T), mean over heads, rows sum to 1; empty unless asked for.
    """

    tokens: Float[torch.Tensor, "B T D"]
    grid: Grid
    attentions: tuple[torch.Tensor, ...] = ()

    @property
    def extra(self) -> int:
        """Prompt tokens n, which lie behind the patches."""
        return self.tokens.shape[1] - 1 - self.grid[0] * self.grid[1]

    def patches(self, tokens: Float[torch.Tensor, "B T E"]) -> Float[torch.Tensor, "B P E"]:
        """The patches alone, of tokens in this order."""
        return tokens[:, 1 : 1 + self.grid[0] * self.grid[1]]


class ClipVit:
    """The vision tower of a CLIP of open_clip.

    Args:
        visual: the tower; it is not changed.
        name: of the model, for people.
        dtype: precision that it computes in.
        prompts: OpenDAS: of the first layers tokens (n, D) each. The first are appended to the patches before `ln_pre`,
            without positions; each further layer's take the place of the last n tokens.

    Raises:
        UsageError: the tower is another than a plain ViT with a CLS token, or the prompts do not fit it.
    """

    def __init__(
        self, visual: Any, name: str, dtype: Dtype = "float32", prompts: Sequence[Float[torch.Tensor, "n D"]] = ()
    ) -> None:
        _require_plain_vit(visual, name)
        self.dtype = getattr(torch, dtype)
        # The tower is shared with whoever loaded the same CLIP.
        self._visual = visual if dtype == "float32" else deepcopy(visual).to(self.dtype)
        self._blocks: list[ResidualAttentionBlock] = list(self._visual.transformer.resblocks)
        self.patch: tuple[int, int] = self._visual.patch_size
        self.native: Grid = self._visual.grid_size
        self.device: torch.device = self._visual.conv1.weight.device
        _require_fitting(prompts, len(self._blocks), self._visual.conv1.out_channels, name)
        self._prompts = [one.to(self.device, self.dtype) for one in prompts]

    @property
    def last(self) -> ResidualAttentionBlock:
        """The last block."""
        return self._blocks[-1]

    def grid(self, sides: tuple[int, int]) -> Grid:
        """Patches of a picture of height and width in model pixels; what is left over at its far sides is not seen."""
        return sides[0] // self.patch[0], sides[1] // self.patch[1]

    @torch.no_grad()
    def trunk(
        self, pixels: Float[torch.Tensor, "B 3 h w"], positions: Positions = by_scale_factor, attentions: bool = False
    ) -> Trunk:
        """Everything but the last block.

        Args:
            pixels: normalised, h and w at least a patch.
            positions: how position embeddings are brought to the grid.
            attentions: keep the blocks' attention. It takes B T^2 numbers a block, and more time.
        """
        visual, grid, kept = self._visual, self.grid((pixels.shape[2], pixels.shape[3])), []
        patches = visual.conv1(pixels.to(self.device, self.dtype)).flatten(2).transpose(1, 2)
        cls = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        table = positions(visual.positional_embedding.float(), self.native, grid)
        tokens = torch.cat([cls, patches], dim=1) + table.to(patches.dtype)
        if self._prompts:
            tokens = torch.cat([tokens, self._prompts[0].expand(len(tokens), -1, -1)], dim=1)
        tokens = visual.ln_pre(tokens)
        for layer, block in enumerate(self._blocks[:-1]):
            tokens = self._prompted(tokens, layer)
            if attentions:
                kept.append(head_mean_attention(block, block.ln_1(tokens)))
            tokens = block(tokens)
        return Trunk(self._prompted(tokens, len(self._blocks) - 1), grid, tuple(kept))

    def _prompted(self, tokens: torch.Tensor, layer: int) -> torch.Tensor:
        """With the prompts of a layer in the place of those before."""
        if not 0 < layer < len(self._prompts):
            return tokens
        prompts = self._prompts[layer]
        return torch.cat([tokens[:, : -len(prompts)], prompts.expand(len(tokens), -1, -1)], dim=1)

    @torch.no_grad()
    def features(self, pixels: Float[torch.Tensor, "B 3 h w"]) -> Float[torch.Tensor, "B E"]:
        """Picture features as the model was trained to give them, with the prompts: float32, not normalised."""
        return self.project(self.last(self.trunk(pixels).tokens)[:, :1])[:, 0]

    def project(self, tokens: Float[torch.Tensor, "B N D"]) -> Float[torch.Tensor, "B N E"]:
        """Tokens after the last block to the space that is shared with texts: float32, not normalised."""
        return (self._visual.ln_post(tokens) @ self._visual.proj).float()


def head_mean_attention(
    block: ResidualAttentionBlock, normed: Float[torch.Tensor, "B T D"]
) -> Float[torch.Tensor, "B T T"]:
    """A block's attention, mean over its heads; rows sum to 1. One head after the other: all together take H T^2.

    Args:
        normed: its tokens after `ln_1`.
    """
    attention = block.attn
    mixed = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
    query, key, _ = mixed.unflatten(-1, (3, attention.num_heads, attention.head_dim)).permute(2, 3, 0, 1, 4)
    total = normed.new_zeros(normed.shape[0], normed.shape[1], normed.shape[1], dtype=torch.float32)
    for one, other in zip(query * attention.head_dim**-0.5, key, strict=True):
        total += (one @ other.transpose(-1, -2)).softmax(-1)
    return total / attention.num_heads


def _require_plain_vit(visual: Any, name: str) -> None:
    """Refuse what the blocks here would compute wrongly."""
    what = type(visual).__name__
    if not isinstance(visual, VisionTransformer):
        raise UsageError(f"CLIP {name} sees with a {what}; this method needs open_clip's own ViT, such as ViT-B-16")
    if any(type(block) is not ResidualAttentionBlock for block in visual.transformer.resblocks):
        raise UsageError(f"CLIP {name} has blocks other than CLIP's own; take a plain ViT, such as ViT-B-16")
    if visual.attn_pool is not None or visual.pool_type != "tok" or visual.proj is None:
        raise UsageError(f"CLIP {name} pools its patches otherwise than by a CLS token; take one such as ViT-B-16")


def _require_fitting(prompts: Sequence[torch.Tensor], layers: int, width: int, name: str) -> None:
    shapes = {tuple(one.shape) for one in prompts}
    if len(prompts) > layers:
        raise UsageError(f"there are visual prompts for {len(prompts)} layers, and CLIP {name} has {layers}")
    if shapes and (len(shapes) > 1 or next(iter(shapes))[1:] != (width,) or next(iter(shapes))[0] < 1):
        found = ", ".join(" x ".join(map(str, shape)) for shape in sorted(shapes))
        raise UsageError(f"visual prompts for CLIP {name} are n x {width} numbers, as many each layer; these: {found}")
