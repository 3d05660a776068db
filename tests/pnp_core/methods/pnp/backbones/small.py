"""A small random checkpoint of every backbone, as users have them on disk, and the plain way to compute with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import BlipTextConfig, BridgeTowerConfig, BridgeTowerForImageAndTextRetrieval, RobertaTokenizer

from pnp_core.methods.pnp.backbones.base import PIXEL_MEAN, PIXEL_STD
from pnp_core.methods.pnp.backbones.convert import convert_weights
from pnp_core.methods.pnp.backbones.photo import PhotoConfig, PhotoForImageTextRetrieval
from pnp_core.methods.pnp.backbones.photo_names import ENC, SEP
from tests.pnp_core.methods.pnp.backbones.originals import original_forward, random_state

WORDS = ("a", "picture", "of", "car", "ice", "cream", "hot", "air", "balloon", "-", "##s", "traffic", "light")
PlainForward = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, list[torch.Tensor]]]
"""(picture (3, H, W), ids (T,)) -> match logits (2,), probabilities of each layer (heads, T, 1 + P) in the graph."""


def save_vocabulary(folder: Path) -> Path:
    """A `vocab.txt` with the size, special tokens and word pieces of bert-base-uncased, but few words."""
    folder.mkdir(parents=True, exist_ok=True)
    unused = [f"[unused{i}]" for i in range(99)]  # so that [CLS] is 101, as in the real file
    known = ["[PAD]", *unused, "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    rest = [f"[filler{i}]" for i in range(30522 - len(known))]
    (folder / "vocab.txt").write_text("\n".join([*known, *rest]) + "\n")
    return folder


def save_original(model: str, folder: Path) -> tuple[Path, PlainForward]:
    """Convert a `.pth` file with random tensors; the plain forward works on the original tensors."""
    state = random_state(model)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": state, "epoch": 3}, folder / "original.pth")
    out = convert_weights(folder / "original.pth", model, str(save_vocabulary(folder)), folder / "checkpoint").folder
    leaves = {name: tensor.float().requires_grad_() for name, tensor in state.items() if tensor.is_floating_point()}
    return out, lambda image, ids: original_forward(model, leaves, image, ids)


def save_photo(folder: Path) -> tuple[Path, PlainForward]:
    """A photo model of a fifth of the width; the plain forward's text side is the stock BLIP text encoder."""
    torch.manual_seed(0)
    text = BlipTextConfig(
        hidden_size=48, encoder_hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, vocab_size=40, bos_token_id=ENC, eos_token_id=SEP, sep_token_id=SEP,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    vision = {"width": 0.2, "depth": 0.5}
    model = PhotoForImageTextRetrieval(
        PhotoConfig(vision_config=vision, text_config=text.to_dict(), cross_attention_layers=2)
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=1.2 * parameter[0].numel() ** -0.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    names = dict.fromkeys(("ice cream", "hot air balloon", *(word for word in WORDS if word.isalpha())))
    (folder / "vocabulary.json").write_text(json.dumps({name: 4 + i for i, name in enumerate(names)}))
    return folder, plain_photo(model)


def plain_photo(model: PhotoForImageTextRetrieval) -> PlainForward:
    """Everything in the graph, the probabilities taken by hooks."""
    text: Any = model.text_encoder
    text.config._attn_implementation = "eager"
    kept: list[torch.Tensor] = []
    for layer in text.encoder.layer:
        layer.crossattention.self.register_forward_hook(lambda _m, _i, output: kept.append(output[1]))

    def forward(image: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        kept.clear()
        mean, std = (torch.tensor(v)[:, None, None] for v in (PIXEL_MEAN, PIXEL_STD))
        tokens = model.vision_model((((image * std + mean) * 255 - 127) / 128)[None])
        hidden = text(input_ids=ids[None], encoder_hidden_states=tokens, is_decoder=False).last_hidden_state
        for probabilities in kept:
            probabilities.retain_grad()
        return model.itm_head(hidden[:, 0])[0], kept

    return forward


def save_small(backbone: str, folder: Path) -> tuple[Path, PlainForward]:
    """A small random checkpoint of a backbone."""
    own = {"bridgetower": save_bridgetower, "photo": save_photo}
    return own[backbone](folder) if backbone in own else save_original(backbone, folder)


def roberta_tokenizer(folder: Path) -> RobertaTokenizer:
    """A small one, by way of files in a folder."""
    bpe = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(["A picture of car ice cream hot-air balloon"] * 9, 600, 2, False, specials)
    bpe.save_model(str(folder))
    return RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def bridgetower_config(**changes: Any) -> BridgeTowerConfig:
    """Two cross-modal layers of 48 channels and 4 heads, bridges from the upper two of three layers."""
    text = {
        "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 600,
        "max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
        "initializer_factor": 1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    vision = {"hidden_size": 128, "num_hidden_layers": 3, "patch_size": 8, "image_size": 48}
    own = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "share_link_tower_layers": False}
    return BridgeTowerConfig(**{**own, **changes, "text_config": text, "vision_config": vision})


def save_bridgetower(folder: Path, config: BridgeTowerConfig | None = None) -> tuple[Path, PlainForward]:
    """A BridgeTower and a RoBERTa tokenizer; the plain forward is the stock model's."""
    torch.manual_seed(0)
    model = BridgeTowerForImageAndTextRetrieval(config or bridgetower_config()).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=1.5 * parameter.shape[-1] ** -0.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    (folder / "bpe").mkdir()
    roberta_tokenizer(folder / "bpe").save_pretrained(folder)
    return folder, stock_bridgetower(folder)


def stock_bridgetower(folder: Path) -> PlainForward:
    """The stock model with everything in the graph, its probabilities taken by hooks."""
    stock = BridgeTowerForImageAndTextRetrieval.from_pretrained(folder, attn_implementation="eager").eval()
    kept: list[torch.Tensor] = []
    for layer in stock.bridgetower.cross_modal_text_layers:
        layer.crossattention.self.register_forward_hook(lambda _m, _i, output: kept.append(output[1]))

    def forward(image: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        kept.clear()
        logits = stock(input_ids=ids[None], pixel_values=image[None], interpolate_pos_encoding=True).logits
        for probabilities in kept:
            probabilities.retain_grad()
        return logits[0], kept

    return forward
