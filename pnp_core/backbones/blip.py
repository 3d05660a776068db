"""BLIP image-text matching (`BlipForImageTextRetrieval`), with the graph pruned to what salience needs.

The weights are transformers'; the two forward passes are written here, because salience needs
the cross-attention probabilities inside the graph and the graph to begin there (stock modules
would record everything from the pixels up). `tests/pnp_core/backbones` holds both against the
stock forward.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from torch.nn import functional as F
from transformers import AutoTokenizer, BlipForImageTextRetrieval, BlipTextConfig
from transformers.utils import logging

from pnp_core.backbones.base import Checkpoint, Match
from pnp_core.config import BackboneConfig
from pnp_core.errors import CheckpointError
from pnp_core.presets import TINY
from pnp_core.prompts import EncodedText

BUNDLED = Path(__file__).parent.parent / "_tiny"
_WEIGHTS = "model.safetensors"
_FILES = ("config.json", _WEIGHTS, "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
# BLIP's tokenizer is bert-base-uncased plus [DEC] and [ENC]; hub tokenizers lack the two.
_BERT_VOCABULARY, _BLIP_ENC = 30522, 30523

# On a CPU two matrix products beat the fused kernel (by 10% at 442 tokens), as long as the matrix is small.
PLAIN_ATTENTION_TOKENS = 1024


def locate(config: BackboneConfig) -> Checkpoint:
    """Find a BLIP checkpoint: the bundled one, a local folder, or a hub repository.

    Raises:
        CheckpointError: it is not there, or is no image-text-matching BLIP.
    """
    local = BUNDLED if config.checkpoint == TINY else Path(config.checkpoint).expanduser()
    from_hub = not local.is_dir()
    folder = _from_hub(config.checkpoint, config.revision) if from_hub else local
    text = _check(folder, config)
    # A hub snapshot's folder is named by its commit; any other folder by what is in it.
    revision = folder.name if from_hub else _digest(folder)
    return Checkpoint(folder, revision, text["num_hidden_layers"], text["num_attention_heads"], from_hub)


def _digest(folder: Path) -> str:
    """Digest of the files that matter."""
    digest = hashlib.sha256()
    for name in _FILES:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                digest.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _from_hub(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(_FILES)))
    except HFValidationError as error:
        raise CheckpointError(f"checkpoint '{repository}' is neither a folder nor a hub id like owner/name") from error
    except Exception as error:  # the hub client raises many types: offline, gated, missing, DNS ...
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"checkpoint '{repository}' is no local folder and could not be fetched from the hub ({reason}); "
            f"download it where there is a network and give its folder"
        ) from error


def _check(folder: Path, config: BackboneConfig) -> dict[str, Any]:
    """Refuse, before loading, what is not an image-text-matching BLIP with the expected heads.

    Returns:
        The text encoder's configuration.
    """
    try:
        raw: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint '{folder}' has no readable config.json") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"checkpoint '{folder}': config.json is not a mapping")
    if raw.get("model_type") != "blip":
        raise CheckpointError(f"checkpoint '{folder}' is a '{raw.get('model_type')}' model, not blip")
    if not (folder / _WEIGHTS).is_file():
        raise CheckpointError(
            f"checkpoint '{folder}' has no {_WEIGHTS}; pickled weights are never loaded, "
            f"convert them with save_pretrained"
        )
    try:
        with safe_open(folder / _WEIGHTS, framework="pt") as weights:
            names = set(weights.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"checkpoint '{folder / _WEIGHTS}' is no readable safetensors file: {error}") from error
    needed = ("itm_head.weight", "text_encoder.encoder.layer.0.crossattention.self.query.weight")
    missing = [name for name in needed if name not in names]
    if missing:
        raise CheckpointError(
            f"checkpoint '{folder}' is not an image-text-matching BLIP: it lacks {', '.join(missing)}"
        )
    # The head count leaves no trace in the weights, and the library's default (8) is wrong for
    # every published BLIP (12): a config that leaves it out would give silently wrong maps.
    text = {"num_hidden_layers": BlipTextConfig().num_hidden_layers, **raw.get("text_config", {})}
    heads = text.get("num_attention_heads")
    if heads is None:
        raise CheckpointError(f"checkpoint '{folder}': config.json does not state text_config.num_attention_heads")
    if config.heads is not None and heads != config.heads:
        raise CheckpointError(
            f"checkpoint '{folder}' has {heads} cross-attention heads, the configuration expects {config.heads}"
        )
    return text


def load(config: BackboneConfig, checkpoint: Checkpoint, device: torch.device) -> Blip:
    """Load a checkpoint for inference.

    Raises:
        CheckpointError: weights missing or of another shape than config.json says.
    """
    logging.disable_progress_bar()  # the pipeline shows its own progress
    loaded: Any
    try:
        loaded = BlipForImageTextRetrieval.from_pretrained(
            checkpoint.folder,
            dtype=torch.float32,  # whatever precision the file has; the text side computes in it
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True, use_fast=True)
    except Exception as error:  # transformers wraps nearly anything: shapes, JSON, tokenizers
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"checkpoint '{checkpoint.folder}' cannot be loaded: {reason}") from error
    model, report = loaded
    lost = sorted(name for name in report["missing_keys"] if "position_ids" not in name)
    if lost:
        raise CheckpointError(f"checkpoint '{checkpoint.folder}' lacks weights: {', '.join(lost[:3])} ...")
    return Blip(model, tokenizer, config.image_size, getattr(torch, config.dtype), device)


class Blip:
    """A loaded `BlipForImageTextRetrieval`; see `Backbone`.

    The image encoder runs in the configured precision, the text encoder in float32: gradients
    of the match logit lose too much in half precision, and the text side is cheap.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        model.requires_grad_(False).eval()
        vision, text = model.config.vision_config, model.config.text_config
        self.patch_size = vision.patch_size
        if image_size % self.patch_size:
            raise CheckpointError(
                f"image_size {image_size} is not a multiple of the model's patch size {self.patch_size}"
            )
        self.grid = (image_size // self.patch_size,) * 2
        self.layers = text.num_hidden_layers
        self.heads = text.num_attention_heads
        self.max_tokens = text.max_position_embeddings
        self.device = device
        self._dtype = dtype
        self._vision = model.vision_model.to(device=device, dtype=dtype)
        self._text = model.text_encoder.to(device)
        self._itm_head = model.itm_head.to(device)
        self._tokenizer = tokenizer
        self._enc = _enc_token(tokenizer, text.vocab_size)

    def tokenize(self, text: str) -> EncodedText:
        """Encode a caption; the first token becomes [ENC], which transformers does not do."""
        encoded = self._tokenizer(text, return_offsets_mapping=True, truncation=False, verbose=False)
        ids = list(encoded["input_ids"])
        unknown = [i == self._tokenizer.unk_token_id for i in ids]
        return EncodedText([self._enc, *ids[1:]], [tuple(o) for o in encoded["offset_mapping"]], unknown)

    @torch.no_grad()
    def encode_image(self, pixels: Float[torch.Tensor, "B 3 S S"]) -> Float[torch.Tensor, "B P1 D"]:
        """Image tokens (float32) of normalised model pixels; positions are interpolated (bicubic)."""
        x = self._vision.embeddings(pixels.to(self.device, self._dtype), interpolate_pos_encoding=True)
        for layer in self._vision.encoder.layers:
            x = x + _self_attention(layer.self_attn, layer.layer_norm1(x))
            x = x + layer.mlp(layer.layer_norm2(x))
        return self._vision.post_layernorm(x).float()

    def match(
        self,
        image_tokens: Float[torch.Tensor, "B P1 D"],
        ids: Int[torch.Tensor, "B N T"],
        mask: Bool[torch.Tensor, "B N T"],
        layers: Sequence[int],
    ) -> Match:
        """Match N captions with each picture, recording the graph from the lowest wanted layer on, see `Backbone`."""
        batch, captions, tokens = ids.shape
        lowest = min(layers, default=self.layers)
        hidden = self._text.embeddings(ids.flatten(0, 1))
        hidden_bias = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)
        hidden_bias = hidden_bias.flatten(0, 1)[:, None, None, :]
        recorded: dict[int, torch.Tensor] = {}
        for number, layer in enumerate(self._text.encoder.layer):
            with torch.set_grad_enabled(number >= lowest):
                hidden = layer.attention(hidden, attention_mask=hidden_bias)[0]
                # All captions of a picture form one long query: keys and values are computed once.
                queries = hidden.view(batch, captions * tokens, -1)
                cross = layer.crossattention
                probabilities = _cross_probabilities(cross.self, queries, image_tokens)
                if number == lowest:
                    probabilities = probabilities.detach().requires_grad_()
                if number in layers:
                    recorded[number] = probabilities
                hidden = cross.output(_read(cross.self, probabilities, image_tokens), queries)
                hidden = layer.feed_forward_chunk(hidden.view(batch * captions, tokens, -1))
        logits = self._itm_head(hidden[:, 0]).view(batch, captions, 2)
        itm = logits.detach().softmax(-1)[..., 1]
        return Match([recorded[i] for i in layers], logits[..., 1], itm)


def _enc_token(tokenizer: Any, vocabulary: int) -> int:
    known = tokenizer.get_vocab().get("[ENC]")
    if known is not None:
        return known
    if len(tokenizer) == _BERT_VOCABULARY and vocabulary > _BLIP_ENC:
        return _BLIP_ENC
    raise CheckpointError("the checkpoint's tokenizer has no [ENC] token and is not BLIP's bert-base-uncased")


def _self_attention(attention: Any, x: torch.Tensor) -> torch.Tensor:
    """The vision encoder's self-attention; for many tokens without storing the (tokens x tokens) matrix."""
    batch, tokens, width = x.shape
    q, k, v = attention.qkv(x).view(batch, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    if x.device.type == "cpu" and tokens <= PLAIN_ATTENTION_TOKENS:
        mixed = (q @ k.transpose(-1, -2) * attention.scale).softmax(-1) @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, scale=attention.scale)
    return attention.projection(mixed.transpose(1, 2).reshape(batch, tokens, width))


def _heads(attention: Any, x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)


def _absorbs(queries: int, image_tokens: torch.Tensor, width: int) -> bool:
    """Whether few queries make it cheaper to carry W_k and W_v over to the text side.

    Keys and values of all image tokens cost tokens x width per channel, the detour
    queries x (tokens + width).
    """
    tokens = image_tokens.shape[1]
    return queries * (tokens + width) < tokens * width


def _cross_probabilities(attention: Any, queries: torch.Tensor, image_tokens: torch.Tensor) -> torch.Tensor:
    query = _heads(attention, attention.query(queries))
    query = query / math.sqrt(query.shape[-1])
    if not _absorbs(query.shape[2], image_tokens, query.shape[-1]):
        return (query @ _heads(attention, attention.key(image_tokens)).transpose(-1, -2)).softmax(-1)
    # q . (W_k x + b_k) = (W_k^T q) . x + a constant per query, which the softmax cancels.
    carried = query @ attention.key.weight.unflatten(0, query.shape[1::2])
    return (carried.flatten(1, 2) @ image_tokens.transpose(1, 2)).view(*query.shape[:3], -1).softmax(-1)


def _read(attention: Any, probabilities: torch.Tensor, image_tokens: torch.Tensor) -> torch.Tensor:
    width = attention.attention_head_size
    if not _absorbs(probabilities.shape[2], image_tokens, width):
        context = probabilities @ _heads(attention, attention.value(image_tokens))
    else:
        mixed = (probabilities.flatten(1, 2) @ image_tokens).view(*probabilities.shape[:3], -1)
        weight, bias = (p.unflatten(0, (-1, width)) for p in (attention.value.weight, attention.value.bias))
        # The bias counts by the sum of the probabilities: 1, but its gradient is not 0.
        context = mixed @ weight.transpose(1, 2) + probabilities.sum(-1, keepdim=True) * bias[:, None]
    return context.transpose(1, 2).flatten(2)
