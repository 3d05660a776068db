"""Position embeddings of a ViT for grids of patches that it was not trained on; the methods do it in two ways."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch.nn import functional as F

Grid = tuple[int, int]
"""Rows and columns of patches."""
Positions = Callable[[Float[torch.Tensor, "T D"], Grid, Grid], Float[torch.Tensor, "U D"]]
"""(table of CLS and native patches, native grid, grid wanted) -> table of CLS and patches of that grid."""


def by_scale_factor(table: Float[torch.Tensor, "T D"], native: Grid, grid: Grid) -> Float[torch.Tensor, "U D"]:
    """As NACLIP: bicubic by the factor (grid + 0.1) / native, which samples a little off the size's own places.

    A grid of as many patches as the native one takes the table as it is, whatever its shape.
    """
    if grid[0] * grid[1] == native[0] * native[1]:
        return table
    factors = ((grid[0] + 0.1) / native[0], (grid[1] + 0.1) / native[1])
    return _joined(table, F.interpolate(_patches(table, native), scale_factor=factors, mode="bicubic"))


def by_size_in_half(table: Float[torch.Tensor, "T D"], native: Grid, grid: Grid) -> Float[torch.Tensor, "U D"]:
    """As CaR: bilinear to the size, the native one too; all rounded to float16, on whatever device."""
    patches = F.interpolate(_patches(table, native), size=grid, mode="bilinear", align_corners=False)
    return _joined(table, patches).half().to(table.dtype)


def _patches(table: torch.Tensor, native: Grid) -> torch.Tensor:
    return table[1:].reshape(1, *native, -1).permute(0, 3, 1, 2)


def _joined(table: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    return torch.cat([table[:1], patches.flatten(2)[0].T])
