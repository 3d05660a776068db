"""What is put in the place of the last block of a CLIP's ViT, so that its patches say what is where.

With y = ln_1(x) the block's queries, keys and values are q, k, v by head of d numbers, and s = 1 / sqrt(d).
`ATTENTIONS` has the weights A of its attention; `run_last_block` says what is done with A v.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Literal

import torch
from jaxtyping import Float
from open_clip.transformer import ResidualAttentionBlock
from torch.nn import functional as F

from pnp_core.openclip.positions import Grid
from pnp_core.openclip.vit import Trunk

AttentionName = Literal["naclip", "kk", "nonly", "csa", "qq", "vanilla"]
Heads = Float[torch.Tensor, "B H T d"]
Weights = Float[torch.Tensor, "B H T T"]


def run_last_block(
    block: ResidualAttentionBlock,
    trunk: Trunk,
    attention: AttentionName,
    residual: bool,
    sigma: float = 5,
) -> Float[torch.Tensor, "B T D"]:
    """Tokens after a last block with another attention.

    Args:
        residual: keep the residual connection and the MLP (`vanilla`), or give what the attention says alone, as NACLIP
            (section 3.3) and ClearCLIP do (`reduced`). With `vanilla` attention this is the block as it was trained.
        sigma: of the neighbourhood of `naclip` and `nonly`, in patches.
    """
    query, key, value = heads(block, block.ln_1(trunk.tokens))
    weights = ATTENTIONS[attention](query.float(), key.float(), partial(_neighbourhood_of, trunk, sigma))
    seen = (weights.to(value.dtype) @ value).transpose(1, 2).flatten(2)
    seen = block.ls_1(block.attn.out_proj(seen))
    if not residual:
        return seen
    tokens = trunk.tokens + seen
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def as_trained(
    block: ResidualAttentionBlock, tokens: Float[torch.Tensor, "B T D"], normed: Float[torch.Tensor, "B T D"]
) -> Float[torch.Tensor, "B T D"]:
    """The block as it was trained, from its tokens and these after `ln_1`, which a gradient may be wanted of."""
    tokens = tokens + block.ls_1(block.attention(q_x=normed))
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def heads(block: ResidualAttentionBlock, normed: Float[torch.Tensor, "B T D"]) -> tuple[Heads, Heads, Heads]:
    """Queries, keys and values of tokens after `ln_1`."""
    attention = block.attn
    mixed = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = mixed.unflatten(-1, (3, attention.num_heads, attention.head_dim)).permute(2, 0, 3, 1, 4)
    return query, key, value


def neighbourhood(grid: Grid, sigma: float, extra: int = 0) -> Float[torch.Tensor, "T T"]:
    """NACLIP's Gaussian of the distance of patches, exp(-|c_i - c_j|^2 / (2 sigma^2)) (section 3.2).

    Args:
        sigma: in patches, > 0.
        extra: prompt tokens behind the patches.

    Returns:
        In [0, 1], 1 of a patch with itself; 0 in rows and columns of CLS and prompts.

    >>> neighbourhood((1, 2), 1.0).tolist()[1]
    [0.0, 1.0, 0.6065306663513184]
    """
    rows, columns = (torch.arange(side, dtype=torch.float32) for side in grid)
    down, along = (torch.exp(-((one[:, None] - one) ** 2) / (2 * sigma**2)) for one in (rows, columns))
    return F.pad(torch.kron(down, along), (1, extra, 1, extra))


@lru_cache(maxsize=8)
def _neighbourhood_on(grid: Grid, sigma: float, extra: int, device: torch.device) -> torch.Tensor:
    return neighbourhood(grid, sigma, extra).to(device)


def _neighbourhood_of(trunk: Trunk, sigma: float) -> torch.Tensor:
    return _neighbourhood_on(trunk.grid, sigma, trunk.extra, trunk.tokens.device)


def _similar(one: Heads, other: Heads) -> Weights:
    return one @ other.transpose(-1, -2) * one.shape[-1] ** -0.5


def _naclip(query: Heads, key: Heads, near: Callable[[], torch.Tensor]) -> Weights:
    """softmax(s k k^T + W), NACLIP equation 6; W is not scaled by s."""
    return (_similar(key, key) + near()).softmax(-1)


def _kk(query: Heads, key: Heads, near: Callable[[], torch.Tensor]) -> Weights:
    """softmax(s k k^T)."""
    return _similar(key, key).softmax(-1)


def _nonly(query: Heads, key: Heads, near: Callable[[], torch.Tensor]) -> Weights:
    """softmax(W s m): the neighbourhood alone, as steep as q k^T is large: m is the picture's mean of |q_i| |k_j|."""
    lengths = query.norm(dim=-1).mean(-1) * key.norm(dim=-1).mean(-1)
    mean = lengths.mean(-1) * query.shape[-1] ** -0.5
    return (near() * mean[:, None, None, None]).softmax(-1).expand(-1, query.shape[1], -1, -1)


def _csa(query: Heads, key: Heads, near: Callable[[], torch.Tensor]) -> Weights:
    """softmax(s q q^T) + softmax(s k k^T), SCLIP equation 3; rows sum to 2."""
    return _similar(query, query).softmax(-1) + _similar(key, key).softmax(-1)


def _qq(query: Heads, key: Heads, near: Callable[[], torch.Tensor]) -> Weights:
    """softmax(s q q^T), ClearCLIP."""
    return _similar(query, query).softmax(-1)


def _vanilla(query: Heads, key: Heads, near: Callable[[], torch.Tensor]) -> Weights:
    """softmax(s q k^T), as trained."""
    return _similar(query, key).softmax(-1)


ATTENTIONS: dict[AttentionName, Callable[[Heads, Heads, Callable[[], torch.Tensor]], Weights]] = {
    "naclip": _naclip,
    "kk": _kk,
    "nonly": _nonly,
    "csa": _csa,
    "qq": _qq,
    "vanilla": _vanilla,
}
"""(q, k, neighbourhood of the tokens) -> weights of v."""
