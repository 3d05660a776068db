"""Where names may be in a picture: gradients of a CLIP, spread by its attention (the paper's mask proposals, after
CLIP-ES, arXiv 2212.09506).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch.nn import functional as F

from pnp_core.openclip.last_block import as_trained
from pnp_core.openclip.positions import Grid, by_size_in_half
from pnp_core.openclip.vit import ClipVit, Trunk, head_mean_attention

BLOCKS = 8
"""Last blocks whose attention counts."""
ROUNDS = 3
"""How often columns and rows of the affinity are brought to a sum of 1."""
_TINY = 1e-15


@dataclass(frozen=True)
class Sight:
    """A picture as the proposer sees it; it is the same in every round.

    Attributes:
        trunk: what the last block begins with, of this picture alone.
        affinity: (P, P), symmetric, how much patches belong together, see `affinity_of`.
    """

    trunk: Trunk
    affinity: Float[torch.Tensor, "P P"]


def see(vit: ClipVit, pixels: Float[torch.Tensor, "1 3 h w"]) -> Sight:
    """Run a picture through the proposer once.

    Of P patches it takes 4 P^2 bytes for each block, and for each head of the block that is at work.

    Args:
        pixels: normalised, h and w multiples of a patch.
    """
    trunk = vit.trunk(pixels, by_size_in_half, attentions=True)
    with torch.no_grad():
        attention = head_mean_attention(vit.last, vit.last.ln_1(trunk.tokens))
        before = trunk.attentions[1 - BLOCKS :]
        for one in before:
            attention += one
        attention /= 1 + len(before)
    number = trunk.grid[0] * trunk.grid[1]
    affinity = affinity_of(attention[0, 1 : 1 + number, 1 : 1 + number])
    return Sight(Trunk(trunk.tokens, trunk.grid), affinity)


def affinity_of(attention: Float[torch.Tensor, "P P"]) -> Float[torch.Tensor, "P P"]:
    """How much patches belong together: their attention, columns and rows in turn divided by their sums, and the mean
    of it and its transpose.

    Args:
        attention: mean over heads and blocks, >= 0.
    """
    found = attention
    for _ in range(ROUNDS):
        for axis in (0, 1):
            # A patch that nobody attends to at all belongs to none; it is no NaN.
            found = found / found.sum(axis, keepdim=True).clamp_min(torch.finfo(found.dtype).tiny)
    return (found + found.T) / 2


def gradcams(
    vit: ClipVit,
    trunk: Trunk,
    names: Float[torch.Tensor, "N E"],
    background: Float[torch.Tensor, "M E"],
    scale: float,
) -> Float[torch.Tensor, "N P"]:
    """GradCAM of each name at the output of the last block's `ln_1`, in [0, 1].

    The picture's feature is the mean over its patches, and what is derived the probability of a name beside the other
    names and the background. Where a map is 0 throughout, background is left out for it.

    Args:
        trunk: of one picture.
        names, background: texts of length 1.
        scale: of the cosines before the softmax.
    """
    maps = _gradcams(vit, trunk, torch.cat([names, background]), scale, range(len(names)))
    nothing = [i for i, one in enumerate(maps) if not one.any()]
    if nothing:
        maps[nothing] = _gradcams(vit, trunk, names, scale, nothing)
    return maps


@torch.enable_grad()
def _gradcams(
    vit: ClipVit, trunk: Trunk, texts: torch.Tensor, scale: float, wanted: range | list[int]
) -> Float[torch.Tensor, "n P"]:
    normed = vit.last.ln_1(trunk.tokens).detach().requires_grad_()
    patches = trunk.patches(as_trained(vit.last, trunk.tokens, normed))
    feature = F.normalize(vit.project(patches).mean(1), dim=-1)
    probabilities = (scale * feature @ texts.T).softmax(-1)[0]
    seen, found = trunk.patches(normed.detach())[0], []
    for i in wanted:
        (slope,) = torch.autograd.grad(probabilities[i], normed, retain_graph=True)
        found.append((seen @ trunk.patches(slope)[0].mean(0)).relu())
    return _to_one(torch.stack(found))


def _to_one(maps: Float[torch.Tensor, "N P"]) -> Float[torch.Tensor, "N P"]:
    """From 0 to 1 each; what is the same everywhere is 0."""
    maps = maps - maps.amin(1, keepdim=True)
    return maps / (maps.amax(1, keepdim=True) + _TINY)


def refined(
    cams: Float[torch.Tensor, "N P"], affinity: Float[torch.Tensor, "P P"], grid: Grid, threshold: float
) -> Float[torch.Tensor, "N P"]:
    """Maps spread to patches that belong together, in [0, 1]: T T (b cam), where b is 1 inside `boxes_of`.

    CLIP-ES squares T first, which takes P^3 multiplications and gives the same.

    Args:
        cams: in [0, 1].
        affinity: T, see `affinity_of`.
        threshold: of the boxes, in [0, 1).
    """
    inside = np.stack([boxes_of(cam.view(grid).cpu().numpy(), threshold) for cam in cams])
    kept = cams * torch.from_numpy(inside).to(cams.device).flatten(1)
    return _to_one((affinity @ (affinity @ kept.T)).T)


def boxes_of(cam: Float[np.ndarray, "gh gw"], threshold: float) -> Bool[np.ndarray, "gh gw"]:
    """What lies in boxes around the parts of a map that are above a threshold.

    The released code lays boxes around all contours, which are those of 8-connected parts and of the holes in them; a
    hole's box lies in that of its part, so that it adds nothing. Boxes end before the last row and column of the map,
    as there.

    Args:
        cam: in [0, 1].
        threshold: share of the maximum, which is compared in whole numbers of 1/255.

    >>> boxes_of(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32), 0.4).astype(int).tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    """
    shades = (cam * 255).astype(np.uint8)
    above = shades > int(threshold * shades.max())
    inside = np.zeros(cam.shape, dtype=bool)
    for top, left, bottom, right in _parts(above):
        inside[top : min(bottom + 1, cam.shape[0] - 1), left : min(right + 1, cam.shape[1] - 1)] = True
    return inside


def _parts(above: Bool[np.ndarray, "gh gw"]) -> list[tuple[int, int, int, int]]:
    """First and last row and column (top, left, bottom, right) of each 8-connected part."""
    left_over = set(zip(*np.nonzero(above), strict=True))
    boxes = []
    while left_over:
        waiting, part = [left_over.pop()], []
        while waiting:
            row, column = waiting.pop()
            part.append((row, column))
            near = {(row + down, column + along) for down in (-1, 0, 1) for along in (-1, 0, 1)} & left_over
            left_over -= near
            waiting += near
        rows, columns = zip(*part, strict=True)
        boxes.append((int(min(rows)), int(min(columns)), int(max(rows)), int(max(columns))))
    return boxes
