"""Prompt tensors: what was learned for a CLIP whose own weights stay as they are (OpenDAS, arXiv 2405.20141).

A file of ours is safetensors: `visual.{i}` (n, width of the ViT) and `text.{i}` (m, width of the text tower), one for
each of the first layers, and `base_model` in the metadata. Where they go is the convention of MaPLe and IVLP: visual
ones behind the patches, before `ln_pre` and without positions; text ones at the places 1 to m behind the start token,
where they get the positions of these places; in both towers each further layer's take the place of those before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock
from safetensors import SafetensorError, safe_open

from pnp_core.errors import CaptionTooLongError, CheckpointError, UsageError, in_words

BASE = "base_model"
"""Metadata: the CLIP that the prompts were learned for, `ViT-L-14` or `ViT-L-14:openai`; of a folder its name."""
_NAME = re.compile(r"(visual|text)\.(0|[1-9]\d*)")


@dataclass(frozen=True)
class Prompts:
    """Prompt tokens of the first layers of both towers; either may have none.

    Attributes:
        visual: (n, D) each, float32, n the same in all layers.
        text: (m, E) each.
        base: what the file says of the CLIP that they are for.
    """

    visual: tuple[Float[torch.Tensor, "n D"], ...] = ()
    text: tuple[Float[torch.Tensor, "m E"], ...] = ()
    base: str = ""


def prompts_digest(file: str) -> str:
    """What names a file of prompts in fingerprints.

    Raises:
        CheckpointError: there is none.
    """
    return hashlib.sha256(_bytes(file)).hexdigest()[:16]


def read_prompts(file: str) -> Prompts:
    """The prompts in a file.

    Raises:
        CheckpointError: it is missing, no safetensors, or holds something else than prompts.
    """
    _bytes(file)
    try:
        with safe_open(Path(file).expanduser(), framework="pt") as opened:
            base = (opened.metadata() or {}).get(BASE, "")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"prompts '{file}' are no safetensors file: {in_words(error)}") from error
    if not base:
        raise CheckpointError(f"prompts '{file}' do not say which CLIP they are for: metadata '{BASE}' is missing")
    if strange := next((name for name in sorted(tensors) if not _NAME.fullmatch(name)), None):
        raise CheckpointError(
            f"prompts '{file}' hold '{strange}': tensors are named visual.0, visual.1 ..., text.0 ..."
        )
    prompts = Prompts(_layers(file, "visual", tensors), _layers(file, "text", tensors), base)
    if not prompts.visual and not prompts.text:
        raise CheckpointError(f"prompts '{file}' hold no tensor")
    return prompts


def _bytes(file: str) -> bytes:
    try:
        return Path(file).expanduser().read_bytes()
    except OSError as error:
        raise CheckpointError(f"prompts '{file}' cannot be read: {error.strerror}") from error


def _layers(file: str, tower: str, tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The tensors of a tower by layer, from 0 without a gap."""
    found = [name for name in tensors if name.startswith(f"{tower}.")]
    names = [f"{tower}.{layer}" for layer in range(len(found))]
    if lost := next((name for name in names if name not in tensors), None):
        raise CheckpointError(f"prompts '{file}' have no {lost} but deeper ones: they begin with layer 0, without gaps")
    layers = tuple(tensors[name] for name in names)
    if any(one.ndim != 2 or len(one) < 1 or one.shape != layers[0].shape for one in layers):
        shapes = ", ".join(sorted({" x ".join(map(str, one.shape)) for one in layers}))
        raise CheckpointError(f"prompts '{file}' of {tower} are tokens x width, as many each layer; these: {shapes}")
    if not all(one.is_floating_point() and bool(torch.isfinite(one).all()) for one in layers):
        raise CheckpointError(f"prompts '{file}' of {tower} hold what is no finite number")
    return tuple(one.float() for one in layers)


@dataclass(frozen=True)
class Tower:
    """What prompts of a tower must fit.

    Attributes:
        other: what it is where it takes no prompts, for people; None for a transformer.
        most: prompt tokens that it has places for; None without a limit.
    """

    layers: int = 0
    width: int = 0
    other: str | None = None
    most: int | None = None


def require_tower(prompts: Sequence[torch.Tensor], tower: Tower, kind: str, clip: str) -> None:
    """Refuse prompts that do not fit a tower.

    Args:
        kind: `visual` or `text`.
        clip: name of the CLIP.

    Raises:
        UsageError: it is no transformer, or has other layers, another width or too few places.
    """
    if not prompts:
        return
    number, width = prompts[0].shape
    if tower.other:
        raise UsageError(f"CLIP {clip} has {tower.other}, which takes no {kind} prompts; they need a transformer")
    if len(prompts) > tower.layers:
        raise UsageError(f"there are {kind} prompts for {len(prompts)} layers, and CLIP {clip} has {tower.layers}")
    if width != tower.width:
        raise UsageError(f"{kind} prompts are {width} numbers wide, and CLIP {clip} is {tower.width}")
    if tower.most is not None and number > tower.most:
        raise UsageError(f"{number} text prompts leave no place for a caption: CLIP {clip} has room for {tower.most}")


def prompted_texts(
    model: Any, ids: Int[torch.Tensor, "N L"], texts: Sequence[str], prompts: Sequence[Float[torch.Tensor, "m E"]]
) -> Float[torch.Tensor, "N D"]:
    """Text features with prompts behind the start token; not normalised.

    Captions move m places to the right, and the sequence keeps its length.

    Args:
        model: a CLIP of open_clip with a text tower of its own.
        ids: of the captions, as its tokenizer gives them.
        texts: the captions, for people.

    Raises:
        UsageError: it reads texts otherwise.
        CaptionTooLongError: a caption does not fit beside the prompts.
    """
    _require_plain_text(model)
    number, length = len(prompts[0]), ids.shape[1]
    ends = ids.argmax(1) if model.text_pool_type == "argmax" else (ids == model.text_eos_id).int().argmax(1)
    _require_room(ends.tolist(), texts, number, length)
    tokens = model.token_embedding(ids)[:, : length - number]
    tokens = _behind_start(tokens, 1, prompts[0]) + model.positional_embedding
    for layer, block in enumerate(model.transformer.resblocks):
        if 0 < layer < len(prompts):
            tokens = _behind_start(tokens, 1 + number, prompts[layer])
        tokens = block(tokens, attn_mask=model.attn_mask)
    ended = model.ln_final(tokens)[torch.arange(len(ids), device=ids.device), ends + number]
    projection = model.text_projection
    return projection(ended) if isinstance(projection, torch.nn.Linear) else ended @ projection


def _behind_start(tokens: torch.Tensor, rest: int, prompts: torch.Tensor) -> torch.Tensor:
    """The start token, prompts, and the tokens from `rest` on."""
    return torch.cat([tokens[:, :1], prompts.to(tokens).expand(len(tokens), -1, -1), tokens[:, rest:]], dim=1)


def _require_plain_text(model: Any) -> None:
    if not isinstance(model, CLIP) or model.text_projection is None or model.text_pool_type not in ("argmax", "eos"):
        raise UsageError("this CLIP reads texts otherwise than CLIP's own; text prompts need one such as ViT-B-16")
    if any(type(block) is not ResidualAttentionBlock for block in model.transformer.resblocks):
        raise UsageError("this CLIP reads texts with blocks other than CLIP's own; text prompts need a plain one")


def _require_room(ends: Sequence[int], texts: Sequence[str], number: int, length: int) -> None:
    for end, text in zip(ends, texts, strict=True):
        if end + number >= length:
            raise CaptionTooLongError(
                f"caption '{text}' takes {end + 1} of {length} places, and text prompts {number}: shorten it"
            )
