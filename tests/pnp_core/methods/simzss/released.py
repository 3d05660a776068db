"""SimZSS's checkpoint as released, small and with random weights, and what it computes, from formulas alone.

Nothing here uses timm or open_clip: names and shapes are written down from the released file's table.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional as F

WIDTH, TEXT_WIDTH, GRID, LAYERS, HEAD = 128, 64, 4, 12, 64
State = dict[str, torch.Tensor]


def shapes(width: int = WIDTH, text: int = TEXT_WIDTH, grid: int = GRID, layers: int = LAYERS) -> dict:
    """Of all tensors of the file, those of training included."""
    vit = "visual.vit.model."
    found = {
        f"{vit}cls_token": (1, 1, width),
        f"{vit}reg_token": (1, 4, width),
        f"{vit}pos_embed": (1, grid**2, width),
        f"{vit}patch_embed.proj.weight": (width, 3, 14, 14),
        f"{vit}patch_embed.proj.bias": (width,),
        f"{vit}norm.weight": (width,),
        f"{vit}norm.bias": (width,),
        "visual.pos_embed": (1, grid**2, width),
        "text.text_projection": (text, width),
        "text.positional_embedding": (77, text),
        "text.token_embedding.weight": (49408, text),
        "text.ln_final.weight": (text,),
        "text.ln_final.bias": (text,),
        "logit_scale": (),
        "logit_scale_local": (1,),
        "beta_ema": (),
        "classification_weights_ema": (575, width),
    }
    for layer in range(layers):
        block = f"{vit}blocks.{layer}."
        found |= _block(block, width) | {f"{block}ls1.gamma": (width,), f"{block}ls2.gamma": (width,)}
        found |= _text_block(f"text.transformer.resblocks.{layer}.", text)
    return found | _block("visual.denoiser.", width)


def _pair(name: str, *shape: int) -> dict:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _block(at: str, width: int) -> dict:
    parts = {"attn.qkv": (3 * width, width), "attn.proj": (width, width), "mlp.fc1": (4 * width, width)}
    parts |= {"mlp.fc2": (width, 4 * width), "norm1": (width,), "norm2": (width,)}
    return {name: shape for part, own in parts.items() for name, shape in _pair(at + part, *own).items()}


def _text_block(at: str, width: int) -> dict:
    parts = {"attn.out_proj": (width, width), "mlp.c_fc": (4 * width, width), "mlp.c_proj": (width, 4 * width)}
    parts |= {"ln_1": (width,), "ln_2": (width,)}
    found = {name: shape for part, own in parts.items() for name, shape in _pair(at + part, *own).items()}
    return found | {f"{at}attn.in_proj_weight": (3 * width, width), f"{at}attn.in_proj_bias": (3 * width,)}


def random_state(seed: int = 0, **sizes: int) -> State:
    """Weights so large that attention is not the same everywhere."""
    random = torch.Generator().manual_seed(seed)
    return {name: 0.2 * torch.randn(shape, generator=random) for name, shape in shapes(**sizes).items()}


def without_denoiser(state: State) -> State:
    """As models without a denoising block are."""
    return {n: t for n, t in state.items() if not n.startswith("visual.denoiser.") and n != "visual.pos_embed"}


def save(folder: Path, state: State, prefix: str = "module.") -> Path:
    """The file, as the authors' training writes it."""
    file = folder / "simzss.pt"
    torch.save({prefix + name: tensor for name, tensor in state.items()}, file)
    return file


def _norm(x: torch.Tensor, state: State, name: str, eps: float) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    spread = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (spread + eps).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def _linear(x: torch.Tensor, state: State, name: str) -> torch.Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _gelu(x: torch.Tensor) -> torch.Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def _attention(mixed: torch.Tensor, mask: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Of queries, keys and values (T, 3 D) side by side, heads of 64 channels."""
    query, key, value = (part.unflatten(1, (-1, HEAD)).transpose(0, 1) for part in mixed.chunk(3, dim=1))
    weights = torch.softmax(query @ key.transpose(1, 2) / HEAD**0.5 + mask, dim=-1)
    return (weights @ value).transpose(0, 1).flatten(1)


def _vision_block(x: torch.Tensor, state: State, at: str) -> torch.Tensor:
    scale1, scale2 = state.get(f"{at}ls1.gamma", 1.0), state.get(f"{at}ls2.gamma", 1.0)
    seen = _attention(_linear(_norm(x, state, f"{at}norm1", 1e-6), state, f"{at}attn.qkv"))
    x = x + scale1 * _linear(seen, state, f"{at}attn.proj")
    hidden = _gelu(_linear(_norm(x, state, f"{at}norm2", 1e-6), state, f"{at}mlp.fc1"))
    return x + scale2 * _linear(hidden, state, f"{at}mlp.fc2")


def _positions(table: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """(1, g^2, D) for another grid (P, D): bicubic, smoothed where it gets smaller."""
    side = int(table.shape[1] ** 0.5)
    if grid == (side, side):
        return table[0]
    square = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    return F.interpolate(square, size=grid, mode="bicubic", antialias=True)[0].flatten(1).T


def patches_by_hand(state: State, image: torch.Tensor) -> torch.Tensor:
    """Patches (P, D) of length 1 of an image (3, h, w) in [0, 1]."""
    vit = "visual.vit.model."
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)
    grid = image.shape[1] // 14, image.shape[2] // 14
    tiles = ((image - mean) / std).unflatten(1, (grid[0], 14)).unflatten(3, (grid[1], 14)).permute(1, 3, 0, 2, 4)
    kernel = state[f"{vit}patch_embed.proj.weight"].flatten(1)
    patches = tiles.reshape(grid[0] * grid[1], -1) @ kernel.T + state[f"{vit}patch_embed.proj.bias"]
    patches = patches + _positions(state[f"{vit}pos_embed"], grid)
    x = torch.cat([state[f"{vit}cls_token"][0], state[f"{vit}reg_token"][0], patches])
    for layer in range(LAYERS):
        x = _vision_block(x, state, f"{vit}blocks.{layer}.")
    x = _norm(x, state, f"{vit}norm", 1e-6)[5:]
    if "visual.pos_embed" in state:
        x = _vision_block(x + _positions(state["visual.pos_embed"], grid), state, "visual.denoiser.")
    return F.normalize(x, dim=-1)


def text_by_hand(state: State, words: list[int]) -> torch.Tensor:
    """Feature (D,) of length 1 of a text's tokens between start and end."""
    tokens = [49406, *words, 49407]
    tokens += [0] * (77 - len(tokens))
    x = state["text.token_embedding.weight"][tokens] + state["text.positional_embedding"]
    mask = torch.full((77, 77), float("-inf")).triu(1)
    for layer in range(LAYERS):
        at = f"text.transformer.resblocks.{layer}."
        normed = _norm(x, state, f"{at}ln_1", 1e-5)
        mixed = normed @ state[f"{at}attn.in_proj_weight"].T + state[f"{at}attn.in_proj_bias"]
        x = x + _linear(_attention(mixed, mask), state, f"{at}attn.out_proj")
        hidden = _gelu(_linear(_norm(x, state, f"{at}ln_2", 1e-5), state, f"{at}mlp.c_fc"))
        x = x + _linear(hidden, state, f"{at}mlp.c_proj")
    end = _norm(x, state, "text.ln_final", 1e-5)[1 + len(words)]
    return F.normalize(end @ state["text.text_projection"], dim=-1)
