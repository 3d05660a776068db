"""Cross-attention of caption tokens to image tokens, in the cheaper of two orders of the same product."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float


def cross_probabilities(
    attention: Any, queries: Float[torch.Tensor, "B Q D"], image_tokens: Float[torch.Tensor, "B P1 E"]
) -> Float[torch.Tensor, "B H Q P1"]:
    """Probabilities of a cross-attention: each query's distribution over the image tokens.

    Args:
        attention: a module with `query`, `key`, `value` and `num_attention_heads`, as transformers' BERTs have.
    """
    query = _split(attention, attention.query(queries))
    query = query / math.sqrt(query.shape[-1])
    if not _absorbs(query.shape[2], image_tokens, query.shape[-1]):
        return (query @ _split(attention, attention.key(image_tokens)).transpose(-1, -2)).softmax(-1)
    # q . (W_k x + b_k) = (W_k^T q) . x + a constant per query, which the softmax cancels.
    carried = query @ attention.key.weight.unflatten(0, query.shape[1::2])
    return (carried.flatten(1, 2) @ image_tokens.transpose(1, 2)).view(*query.shape[:3], -1).softmax(-1)


def read(
    attention: Any, probabilities: Float[torch.Tensor, "B H Q P1"], image_tokens: Float[torch.Tensor, "B P1 E"]
) -> Float[torch.Tensor, "B Q D"]:
    """What the queries read from the image tokens with these probabilities, heads side by side."""
    width = attention.attention_head_size
    if not _absorbs(probabilities.shape[2], image_tokens, width):
        context = probabilities @ _split(attention, attention.value(image_tokens))
    else:
        mixed = (probabilities.flatten(1, 2) @ image_tokens).view(*probabilities.shape[:3], -1)
        weight, bias = (p.unflatten(0, (-1, width)) for p in (attention.value.weight, attention.value.bias))
        # The bias counts by the sum of the probabilities: 1, but its gradient is not 0.
        context = mixed @ weight.transpose(1, 2) + probabilities.sum(-1, keepdim=True) * bias[:, None]
    return context.transpose(1, 2).flatten(2)


def hide_padding(mask: torch.Tensor) -> torch.Tensor:
    """What is added to attention scores so that padding is not seen: 0 or -inf, (captions, 1, 1, T)."""
    bias = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)
    return bias.flatten(0, -2)[:, None, None, :]


def _split(attention: Any, x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)


def _absorbs(queries: int, image_tokens: torch.Tensor, width: int) -> bool:
    """Whether few queries make it cheaper to carry W_k and W_v over to the text side.

    Keys and values of all image tokens cost tokens x width per channel, the detour
    queries x (tokens + width).
    """
    tokens = image_tokens.shape[1]
    return queries * (tokens + width) < tokens * width
