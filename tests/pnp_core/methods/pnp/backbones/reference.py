"""The plain way: stock transformers forward of everything, then backward through everything.

What the project's pruned graph is held against; slow on purpose, and shares no code with it.
"""

from __future__ import annotations

import torch
from transformers import BlipForImageTextRetrieval


class FullBackward:
    """Cross-attention probabilities and their gradients from the stock model, recorded by hooks."""

    def __init__(self, model: BlipForImageTextRetrieval) -> None:
        self.model = model.requires_grad_(True)
        self.probabilities: dict[int, torch.Tensor] = {}
        for number, layer in enumerate(model.text_encoder.encoder.layer):
            layer.crossattention.self.dropout.register_forward_hook(self._keep(number))

    def _keep(self, number: int):
        # The attention dropout module (p = 0) sees exactly the probabilities used.
        def hook(_module, _inputs, output):
            output.retain_grad()
            self.probabilities[number] = output

        return hook

    def salience(self, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        """P * relu(dTarget/dP) of every layer for one picture and one caption: (heads, tokens, P)."""
        self.model.zero_grad()
        logits = self.model(
            input_ids=ids[None],
            attention_mask=mask[None].long(),
            pixel_values=pixels[None],
            interpolate_pos_encoding=True,
        ).itm_score
        logits[:, 1].sum().backward()
        maps = []
        for number in sorted(self.probabilities):
            probabilities = self.probabilities[number]
            gradient = probabilities.grad if probabilities.grad is not None else torch.zeros_like(probabilities)
            maps.append((probabilities.detach() * gradient.clamp(min=0))[0, :, :, 1:])
        return maps

    def class_maps(self, pixels, prompts, layer: int, head: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Class maps (C, P) and rank (P,) of one picture, caption by caption."""
        tokens = []
        for ids, mask in zip(prompts.ids, prompts.mask, strict=True):
            length = int(mask.sum())
            tokens.append(self.salience(pixels, ids[:length], mask[:length])[layer][head])
        rows, rank = [], 0
        for c, n in enumerate(prompts.caption_of_class.tolist()):
            own = tokens[n][prompts.class_tokens[c, n, : len(tokens[n])]]
            rows.append(own.mean(0))
            rank = rank + own.sum(0)
        return torch.stack(rows), rank

    def dropout(self, pixels, prompts, layer: int, head: int, iterations: int, count: int, patch: int):
        """Salience DropOut with a fixed count, written out: maps (K, C, P) and dropped (K, P)."""
        side = pixels.shape[-1] // patch
        dropped: list[int] = []
        kept_maps, kept_dropped = [], []
        for _ in range(iterations):
            hidden = pixels.clone()
            for p in dropped:
                y, x = divmod(p, side)
                hidden[:, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch] = 0
            maps, rank = self.class_maps(hidden, prompts, layer, head)
            maps[:, dropped] = 0
            kept_maps.append(maps)
            flags = torch.zeros(side * side, dtype=torch.bool)
            flags[dropped] = True
            kept_dropped.append(flags)
            order = sorted((p for p in range(side * side) if p not in dropped), key=lambda p: -float(rank[p]))
            dropped = dropped + order[:count]
        return torch.stack(kept_maps), torch.stack(kept_dropped)
