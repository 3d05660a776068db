"""The authors' own `.pth` files of BLIP, ALBEF and mPLUG, made into checkpoint folders.

Every tensor of a file is renamed, or dropped for a stated reason, or refused; every tensor of the model has to come
from the file. What of a model's shape leaves no trace in its weights (the number of heads) is what all
releases have: 12 heads in the text encoder, 64 channels per head in the image encoder.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pnp_core.errors import CheckpointError, UsageError
from pnp_core.methods.pnp.backbones.cards import backbone_card
from pnp_core.methods.pnp.backbones.checkpoint import SAFETENSORS, is_offline
from pnp_core.storage.weights import Conversion, read_state, require_new, require_same, save_tensors

State = dict[str, torch.Tensor]

_VIT = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.blocks\.", "vision_model.encoder.layers."),
    (r"^visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (r"(vision_model\.encoder\.layers\.\d+)\.norm", r"\1.layer_norm"),
    (r"(vision_model\.encoder\.layers\.\d+)\.attn\.proj\.", r"\1.self_attn.projection."),
    (r"(vision_model\.encoder\.layers\.\d+)\.attn\.", r"\1.self_attn."),
)
_CLIP = (
    (r"^visual_encoder\.visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual_encoder\.visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual_encoder\.visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual_encoder\.visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"(vision_model\.encoder\.layers\.\d+)\.ln_", r"\1.layer_norm"),
    (r"(vision_model\.encoder\.layers\.\d+)\.attn\.", r"\1.self_attn."),
    (r"(vision_model\.encoder\.layers\.\d+)\.mlp\.c_fc\.", r"\1.mlp.fc1."),
    (r"(vision_model\.encoder\.layers\.\d+)\.mlp\.c_proj\.", r"\1.mlp.fc2."),
)
# Pre-trained releases have a language model around the encoders, fine-tuned ones have not.
_BERT = ((r"^(text|fusion)_encoder\.(bert|fusion)\.", r"\1_encoder."),)
_TRAINING = {
    "momentum copies": r"^\w+_m\.",
    "training queues": r"^(\w+_queue|queue_ptr|idx_queue)$",
    "temperature": r"^(temp|logit_scale)$",
    "counters": r"(position_ids|num_batches_tracked)$",
    "language-model heads and decoders": r"^(text_decoder\.|(text|fusion)_encoder\.(cls|(bert\.|fusion\.)?pooler)\.)",
}
_CONTRAST = {"contrastive projections": r"^(vision|text)_proj\."}


@dataclass(frozen=True)
class Layout:
    """How the authors of a model name its tensors.

    Attributes:
        drop: by reason, what matching image and text does not need; a pattern, or what makes one of all tensors.
        rename: patterns and what takes their place, one after the other.
        finish: what is left to do once all have their names; returns config.json.
        empty: a model of these sizes, to compare with.
    """

    drop: Mapping[str, str | Callable[[State], str]]
    rename: tuple[tuple[str, str], ...]
    finish: Callable[[State], dict[str, Any]]
    empty: Callable[[dict[str, Any]], torch.nn.Module]


def _layers(state: State, prefix: str) -> int:
    numbers = [int(m[1]) for name in state if (m := re.match(re.escape(prefix) + r"(\d+)\.", name))]
    if not numbers:
        raise CheckpointError(f"it has no tensor {prefix}*")
    return 1 + max(numbers)


def _unused_fusion(state: State) -> str:
    """MPLUG's fusion encoder is as deep as both encoders together; what lies below its own layers is never run."""
    own = _layers({re.sub(*_BERT[0], name): tensor for name, tensor in state.items()}, "text_encoder.encoder.layer.")
    return rf"^fusion_encoder\.((bert|fusion)\.)?(embeddings|encoder\.layer\.({'|'.join(map(str, range(own)))}))\."


def _text_config(state: State) -> dict[str, Any]:
    words = state["text_encoder.embeddings.word_embeddings.weight"]
    layers = _layers(state, "text_encoder.encoder.layer.")
    cross = _cross_keys(state)
    if not cross:
        raise CheckpointError("it has no cross-attention")
    return {
        "vocab_size": words.shape[0],
        "hidden_size": words.shape[1],
        "encoder_hidden_size": cross[0].shape[1],
        "intermediate_size": state["text_encoder.encoder.layer.0.intermediate.dense.weight"].shape[0],
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "max_position_embeddings": state["text_encoder.embeddings.position_embeddings.weight"].shape[0],
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": 101,
        "is_decoder": True,  # transformers' word for: with cross-attention
    }


def _cross_keys(state: State) -> list[torch.Tensor]:
    """Of the layers that look at the image."""
    return [tensor for name, tensor in state.items() if name.endswith("crossattention.self.key.weight")]


def _vision_config(state: State, width: int, positions: int) -> dict[str, Any]:
    patch = state["vision_model.embeddings.patch_embedding.weight"].shape[-1]
    return {
        "hidden_size": width,
        "intermediate_size": state["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _layers(state, "vision_model.encoder.layers."),
        "num_attention_heads": width // 64,
        "image_size": round((positions - 1) ** 0.5) * patch,
        "patch_size": patch,
    }


def _fold_token_types(state: State) -> None:
    """All tokens are of type 0: its embedding is added to the positions', which come before the same layer norm."""
    types = state.pop("text_encoder.embeddings.token_type_embeddings.weight", None)
    if types is not None:
        positions = state["text_encoder.embeddings.position_embeddings.weight"]
        state["text_encoder.embeddings.position_embeddings.weight"] = positions.float() + types[0].float()


def _finish_blip(state: State) -> dict[str, Any]:
    _, tokens, width = state["vision_model.embeddings.position_embedding"].shape
    return {
        "model_type": "blip",
        "image_text_hidden_size": state["vision_proj.weight"].shape[0],
        "vision_config": {**_vision_config(state, width, tokens), "layer_norm_eps": 1e-6, "hidden_act": "gelu"},
        "text_config": {**_text_config(state), "bos_token_id": 30522},
    }


def _finish_albef(state: State) -> dict[str, Any]:
    _fold_token_types(state)
    _, tokens, width = state["vision_model.embeddings.position_embedding"].shape
    return {
        "model_type": "albef",
        "cross_attention_layers": len(_cross_keys(state)),
        "vision_config": {**_vision_config(state, width, tokens), "layer_norm_eps": 1e-6, "hidden_act": "gelu"},
        "text_config": _text_config(state),
    }


def _finish_mplug(state: State) -> dict[str, Any]:
    """The fusion encoder's layers go on where the text encoder's end."""
    for name in [n for n in state if n.startswith("fusion_encoder.encoder.layer.")]:
        state[name.replace("fusion_encoder.", "text_encoder.")] = state.pop(name)
    for name in [n for n in state if "in_proj_" in n]:
        for part, tensor in zip("qkv", state.pop(name).chunk(3), strict=True):
            state[name.replace("in_proj_", f"{part}_proj.")] = tensor.clone()
    _fold_token_types(state)
    tokens, width = state["vision_model.embeddings.position_embedding.weight"].shape
    return {
        "model_type": "mplug",
        "cross_attention_layers": len(_cross_keys(state)),
        "vision_config": {**_vision_config(state, width, tokens), "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"},
        "text_config": _text_config(state),
    }


def _empty_blip(sizes: dict[str, Any]) -> torch.nn.Module:
    from transformers import BlipConfig, BlipForImageTextRetrieval

    return BlipForImageTextRetrieval(BlipConfig(**sizes))


def _empty_albef(sizes: dict[str, Any]) -> torch.nn.Module:
    from pnp_core.methods.pnp.backbones.albef import AlbefConfig, AlbefForImageTextRetrieval

    return AlbefForImageTextRetrieval(AlbefConfig(**sizes))


def _empty_mplug(sizes: dict[str, Any]) -> torch.nn.Module:
    from pnp_core.methods.pnp.backbones.mplug import MplugConfig, MplugForImageTextRetrieval

    return MplugForImageTextRetrieval(MplugConfig(**sizes))


LAYOUTS = {
    "blip": Layout(_TRAINING, (*_VIT, *_BERT), _finish_blip, _empty_blip),
    "albef": Layout({**_TRAINING, **_CONTRAST}, (*_VIT, *_BERT), _finish_albef, _empty_albef),
    "mplug": Layout(
        {
            **_TRAINING,
            **_CONTRAST,
            "CLIP's text side": r"^visual_encoder\.(?!visual\.)",
            "CLIP's projection": r"^visual_encoder\.visual\.proj$",
            "layers of the fusion encoder that never run": _unused_fusion,
        },
        (*_CLIP, *_BERT, (r"^visn_fc\.", "vision_projection."), (r"^visn_layer_norm\.", "vision_norm.")),
        _finish_mplug,
        _empty_mplug,
    ),
}


def convert_weights(file: Path, backbone: str, tokenizer: str, out: Path) -> Conversion:
    """Make a checkpoint folder of a file the authors published.

    Args:
        tokenizer: where bert-base-uncased's vocabulary is: a `vocab.txt`, its folder, or a hub id.
        out: a folder that is not there yet; it appears when it is whole.

    Raises:
        UsageError: no such backbone, or `out` is there.
        CheckpointError: the file cannot be read or is of another model; the vocabulary is not to be had.
    """
    layout = LAYOUTS.get(backbone_card(backbone).name)
    if layout is None:
        raise UsageError(f"weights of {backbone} are published as they are read: give their hub id or folder")
    require_new(out)
    tensors = read_state(file)
    looks = _looks_like(tensors)
    if looks != backbone:
        raise CheckpointError(
            f"'{file}' looks like {backbone_card(looks).title}, not {backbone}: give --backbone {looks}"
        )
    try:
        state, dropped = _rename(tensors, layout)
        config = _configure(state, layout)
        _check(layout, config, state)
    except CheckpointError as error:
        raise CheckpointError(f"'{file}' is no {backbone} model as released: {error}") from error
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as place:
        folder = Path(place) / "checkpoint"
        _save_tokenizer(backbone, tokenizer, config["text_config"]["vocab_size"], folder)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_tensors(state, folder / SAFETENSORS, like=folder / "config.json")
        shutil.move(folder, out)
    return Conversion(out, len(state), dropped)


def _looks_like(state: State) -> str:
    """Whose tensors these are, by names that the others do not have."""
    if any(name.startswith(("fusion_encoder.", "visual_encoder.visual.")) for name in state):
        return "mplug"
    types = ("text_encoder.embeddings.token_type", "text_encoder.bert.")
    return "albef" if any(name.startswith(types) for name in state) else "blip"


def _rename(state: State, layout: Layout) -> tuple[State, dict[str, int]]:
    kept: State = {}
    dropped: Counter[str] = Counter()
    drop = {why: pattern(state) if callable(pattern) else pattern for why, pattern in layout.drop.items()}
    for name, tensor in state.items():
        reason = next((why for why, pattern in drop.items() if re.search(pattern, name)), None)
        if reason:
            dropped[reason] += 1
            continue
        for pattern, replacement in layout.rename:
            name = re.sub(pattern, replacement, name)
        kept[name] = tensor
    return kept, dict(dropped)


def _configure(state: State, layout: Layout) -> dict[str, Any]:
    if "itm_head.weight" not in state:
        raise CheckpointError(
            "it has no image-text-matching head (itm_head), which salience is the gradient of; take a pre-trained "
            "release or one for retrieval"
        )
    try:
        return layout.finish(state)
    except KeyError as error:
        raise CheckpointError(f"it has no tensor {error}") from error


def _check(layout: Layout, config: dict[str, Any], state: State) -> None:
    """Every tensor of the model has to be there, in its shape, and no other."""
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in layout.empty(_sizes(config)).state_dict().items()}
    require_same(expected, {name: tensor.shape for name, tensor in state.items()})


def _sizes(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "model_type"}


_SPECIALS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102}


def _save_tokenizer(backbone: str, source: str, words: int, folder: Path) -> None:
    from transformers import BertTokenizer

    tokenizer: Any = BertTokenizer(str(_vocabulary(source)))
    if backbone == "blip":
        tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    known = tokenizer.get_vocab()
    if len(tokenizer) != words or any(known.get(word) != number for word, number in _SPECIALS.items()):
        raise CheckpointError(
            f"the vocabulary '{source}' ({len(tokenizer)} words, {words} needed) is not the one of bert-base-uncased; "
            f"give its vocab.txt as --tokenizer"
        )
    tokenizer.save_pretrained(folder)


def _vocabulary(source: str) -> Path:
    """The file with one word per line."""
    place = Path(source).expanduser()
    place = place / "vocab.txt" if place.is_dir() else place
    if place.is_file():
        return place
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source, "vocab.txt"))
    except Exception as error:  # the hub client raises many types: offline, missing, DNS ...
        offline = " (HF_HUB_OFFLINE is set)" if is_offline() else ""
        raise CheckpointError(
            f"the vocabulary '{source}' is no file, and not to be had from the hub{offline}; "
            f"give --tokenizer a vocab.txt of bert-base-uncased"
        ) from error
