"""BLIP, ALBEF and mPLUG as their authors wrote them down: tensors by their names, and nothing but torch functions.

Independent of the project and of transformers: what conversion and pruned graph are held against. Random tensors of
reduced width stand for the released ones; names and shapes are those of the releases.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.nn import functional as F

State = dict[str, torch.Tensor]
WIDTH, PATCH, SIDE, TEXT, HEADS, VOCABULARY, LENGTH = 128, 8, 48, 48, 12, 30522, 40


def _linear(name: str, out: int, into: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (out, into)
    yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _vit(prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{prefix}.cls_token", (1, 1, WIDTH)
    yield f"{prefix}.pos_embed", (1, (SIDE // PATCH) ** 2 + 1, WIDTH)
    yield f"{prefix}.patch_embed.proj.weight", (WIDTH, 3, PATCH, PATCH)
    yield f"{prefix}.patch_embed.proj.bias", (WIDTH,)
    for i in range(2):
        block = f"{prefix}.blocks.{i}"
        yield from _norm(f"{block}.norm1", WIDTH)
        yield from _linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH)
        yield from _linear(f"{block}.attn.proj", WIDTH, WIDTH)
        yield from _norm(f"{block}.norm2", WIDTH)
        yield from _linear(f"{block}.mlp.fc1", 2 * WIDTH, WIDTH)
        yield from _linear(f"{block}.mlp.fc2", WIDTH, 2 * WIDTH)
    yield from _norm(f"{prefix}.norm", WIDTH)


def _clip(prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{prefix}.class_embedding", (WIDTH,)
    yield f"{prefix}.positional_embedding", ((SIDE // PATCH) ** 2 + 1, WIDTH)
    yield f"{prefix}.conv1.weight", (WIDTH, 3, PATCH, PATCH)
    yield f"{prefix}.proj", (WIDTH, 16)
    yield from _norm(f"{prefix}.ln_pre", WIDTH)
    yield from _norm(f"{prefix}.ln_post", WIDTH)
    for i in range(2):
        block = f"{prefix}.transformer.resblocks.{i}"
        yield f"{block}.attn.in_proj_weight", (3 * WIDTH, WIDTH)
        yield f"{block}.attn.in_proj_bias", (3 * WIDTH,)
        yield from _linear(f"{block}.attn.out_proj", WIDTH, WIDTH)
        yield from _norm(f"{block}.ln_1", WIDTH)
        yield from _norm(f"{block}.ln_2", WIDTH)
        yield from _linear(f"{block}.mlp.c_fc", 4 * WIDTH, WIDTH)
        yield from _linear(f"{block}.mlp.c_proj", WIDTH, 4 * WIDTH)


def _bert(prefix: str, layers: int, cross_from: int, sees: int, types: bool, words: int = VOCABULARY):
    if words:
        yield f"{prefix}.embeddings.word_embeddings.weight", (words, TEXT)
        yield f"{prefix}.embeddings.position_embeddings.weight", (LENGTH, TEXT)
        if types:
            yield f"{prefix}.embeddings.token_type_embeddings.weight", (2, TEXT)
        yield from _norm(f"{prefix}.embeddings.LayerNorm", TEXT)
    for i in range(layers):
        layer = f"{prefix}.encoder.layer.{i}"
        for kind, source in (("attention", TEXT), ("crossattention", sees)):
            if kind == "attention" or i >= cross_from:
                yield from _linear(f"{layer}.{kind}.self.query", TEXT, TEXT)
                yield from _linear(f"{layer}.{kind}.self.key", TEXT, source)
                yield from _linear(f"{layer}.{kind}.self.value", TEXT, source)
                yield from _linear(f"{layer}.{kind}.output.dense", TEXT, TEXT)
                yield from _norm(f"{layer}.{kind}.output.LayerNorm", TEXT)
        yield from _linear(f"{layer}.intermediate.dense", 2 * TEXT, TEXT)
        yield from _linear(f"{layer}.output.dense", TEXT, 2 * TEXT)
        yield from _norm(f"{layer}.output.LayerNorm", TEXT)


def _names(model: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    if model == "blip":
        yield from _vit("visual_encoder")
        yield from _bert("text_encoder", 3, 0, WIDTH, types=False, words=VOCABULARY + 2)
    elif model == "albef":
        yield from _vit("visual_encoder")
        yield from _bert("text_encoder.bert", 4, 2, WIDTH, types=True)
    else:
        yield from _clip("visual_encoder.visual")
        yield from _linear("visn_fc", TEXT, WIDTH)
        yield from _norm("visn_layer_norm", TEXT)
        yield from _bert("text_encoder", 2, 2, TEXT, types=True)
        yield from _bert("fusion_encoder", 4, 0, TEXT, types=True)
    yield from _linear("itm_head", 2, TEXT)
    yield from _linear("vision_proj", 16, WIDTH if model != "mplug" else TEXT)
    yield from _linear("text_proj", 16, TEXT)


def random_state(model: str, seed: int = 0) -> State:
    """A state dict as released: with momentum copies, queues and heads that matching does not need."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        values = torch.randn(shape, generator=generator)
        is_norm = len(shape) == 1 and name.endswith("weight")
        return 1 + 0.1 * values if is_norm else values * (0.3 if len(shape) == 1 else shape[-1] ** -0.5 * 1.5)

    state = {name: drawn(name, shape) for name, shape in _names(model)}
    momentum = {name.replace(".", "_m.", 1): tensor + 1 for name, tensor in state.items() if "itm" not in name}
    position_ids = {name: torch.arange(LENGTH)[None] for name in _position_ids(model)}
    queues = {"image_queue": torch.zeros(16, 8), "text_queue": torch.zeros(16, 8), "temp": torch.tensor(0.07)}
    queues |= {"queue_ptr" if model != "blip" else "ptr_queue": torch.zeros(1, dtype=torch.long)}
    heads = {"text_encoder.cls.predictions.bias": torch.zeros(5)} if model == "albef" else {}
    clip = {"visual_encoder.token_embedding.weight": torch.zeros(4, 4)} if model == "mplug" else {}
    return {**state, **momentum, **queues, **heads, **clip, **position_ids}


def _position_ids(model: str) -> list[str]:
    prefix = "text_encoder.bert" if model == "albef" else "text_encoder"
    return [f"{prefix}.embeddings.position_ids"]


def _apply(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _normed(state: State, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one sequence, (tokens, width) each: what is read, and the probabilities (heads, queries, keys)."""
    q, k, v = (x.view(x.shape[0], heads, -1).transpose(0, 1) for x in (q, k, v))
    probabilities = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)
    return (probabilities @ v).transpose(0, 1).flatten(1), probabilities


def _positions(table: torch.Tensor, down: int, across: int, mode: str) -> torch.Tensor:
    """(1 + side * side, width) positions for another grid, as the authors' of each model."""
    side = round((len(table) - 1) ** 0.5)
    if (down, across) == (side, side):
        return table
    grid = table[1:].view(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(down, across), mode=mode, align_corners=False)
    return torch.cat([table[:1], grid[0].flatten(1).T])


def _see_vit(state: State, image: torch.Tensor) -> torch.Tensor:
    e = "visual_encoder"
    patches = F.conv2d(
        image[None], state[f"{e}.patch_embed.proj.weight"], state[f"{e}.patch_embed.proj.bias"], stride=PATCH
    )
    x = torch.cat([state[f"{e}.cls_token"][0], patches[0].flatten(1).T])
    x = x + _positions(state[f"{e}.pos_embed"][0], *patches.shape[-2:], "bicubic")
    for i in range(2):
        b = f"{e}.blocks.{i}"
        q, k, v = _apply(state, f"{b}.attn.qkv", _normed(state, f"{b}.norm1", x, 1e-6)).chunk(3, -1)
        x = x + _apply(state, f"{b}.attn.proj", _attention(q, k, v, WIDTH // 64)[0])
        inner = F.gelu(_apply(state, f"{b}.mlp.fc1", _normed(state, f"{b}.norm2", x, 1e-6)))
        x = x + _apply(state, f"{b}.mlp.fc2", inner)
    return _normed(state, f"{e}.norm", x, 1e-6)


def _see_clip(state: State, image: torch.Tensor) -> torch.Tensor:
    e = "visual_encoder.visual"
    patches = F.conv2d(image[None], state[f"{e}.conv1.weight"], stride=PATCH)
    x = torch.cat([state[f"{e}.class_embedding"][None], patches[0].flatten(1).T])
    positions = _positions(state[f"{e}.positional_embedding"], *patches.shape[-2:], "bilinear")
    x = _normed(state, f"{e}.ln_pre", x + positions, 1e-5)
    for i in range(2):
        b = f"{e}.transformer.resblocks.{i}"
        y = _normed(state, f"{b}.ln_1", x, 1e-5)
        q, k, v = F.linear(y, state[f"{b}.attn.in_proj_weight"], state[f"{b}.attn.in_proj_bias"]).chunk(3, -1)
        x = x + _apply(state, f"{b}.attn.out_proj", _attention(q, k, v, WIDTH // 64)[0])
        y = _apply(state, f"{b}.mlp.c_fc", _normed(state, f"{b}.ln_2", x, 1e-5))
        x = x + _apply(state, f"{b}.mlp.c_proj", y * torch.sigmoid(1.702 * y))
    return _normed(state, "visn_layer_norm", _apply(state, "visn_fc", _normed(state, f"{e}.ln_post", x, 1e-5)), 1e-12)


def _layer(state: State, name: str, x: torch.Tensor, image: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    probabilities = torch.empty(0)
    for kind, source in (("attention", x), ("crossattention", image)):
        if source is not None:
            source = x if kind == "attention" else source
            q = _apply(state, f"{name}.{kind}.self.query", x)
            k, v = (_apply(state, f"{name}.{kind}.self.{part}", source) for part in ("key", "value"))
            mixed, probabilities = _attention(q, k, v, HEADS)
            if kind == "crossattention" and probabilities.requires_grad:
                probabilities.retain_grad()
            x = x + _apply(state, f"{name}.{kind}.output.dense", mixed)
            x = _normed(state, f"{name}.{kind}.output.LayerNorm", x, 1e-12)
    inner = _apply(state, f"{name}.output.dense", F.gelu(_apply(state, f"{name}.intermediate.dense", x)))
    return _normed(state, f"{name}.output.LayerNorm", inner + x, 1e-12), probabilities


def _embed(state: State, prefix: str, ids: torch.Tensor) -> torch.Tensor:
    e = f"{prefix}.embeddings"
    x = state[f"{e}.word_embeddings.weight"][ids] + state[f"{e}.position_embeddings.weight"][: len(ids)]
    if f"{e}.token_type_embeddings.weight" in state:
        x = x + state[f"{e}.token_type_embeddings.weight"][0]
    return _normed(state, f"{e}.LayerNorm", x, 1e-12)


def original_forward(
    model: str, state: State, image: torch.Tensor, ids: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Match logits (2,) of a picture (3, H, W) and a caption without padding, and the probabilities of each
    cross-attention (heads, tokens, 1 + P)."""
    image = _see_clip(state, image) if model == "mplug" else _see_vit(state, image)
    prefix = "text_encoder.bert" if model == "albef" else "text_encoder"
    x = _embed(state, prefix, ids)
    plain, fused = {"blip": ([], range(3)), "albef": (range(2), range(2, 4)), "mplug": (range(2), range(2, 4))}[model]
    for i in plain:
        x, _ = _layer(state, f"{prefix}.encoder.layer.{i}", x, None)
    kept = []
    for i in fused:
        x, probabilities = _layer(
            state, f"{'fusion_encoder' if model == 'mplug' else prefix}.encoder.layer.{i}", x, image
        )
        kept.append(probabilities)
    return _apply(state, "itm_head", x[0]), kept
