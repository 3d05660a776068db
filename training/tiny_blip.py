"""The tiny BlipForImageTextRetrieval: configuration, tokenizer, initial weights, re-gauging."""

from __future__ import annotations

import re
import string

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BlipConfig, BlipForImageTextRetrieval, PreTrainedTokenizerFast

from pnp_core.inputs.scenes.shapes import CLASS_NAMES

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]")
WIDTH = 128
INIT_STD = 0.08


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-piece tokenizer: the words of the captions whole, everything else letter by letter."""
    words = sorted({w for name in (*CLASS_NAMES, "a picture of") for w in re.findall(r"\w+", name)})
    characters = string.ascii_lowercase + string.digits
    pieces = [*SPECIAL, *words, *characters, *string.punctuation, *(f"##{c}" for c in characters)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(t, vocabulary[t]) for t in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        bos_token="[DEC]", additional_special_tokens=["[ENC]"], model_max_length=64,
    )  # fmt: skip


def _sin_cos_positions(grid: int, width: int) -> torch.Tensor:
    """Two-dimensional sine-cosine position embedding (grid * grid, width)."""
    frequencies = 1 / 100 ** (torch.arange(width // 4) / (width // 4))
    y, x = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    angles = [axis.flatten()[:, None] * frequencies for axis in (y, x)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1)


def build_model(tokenizer: PreTrainedTokenizerFast, image_size: int, seed: int) -> BlipForImageTextRetrieval:
    """Fresh weights: normal with std 0.08, sine-cosine positions."""
    torch.manual_seed(seed)
    config = BlipConfig(
        image_text_hidden_size=32,
        vision_config=dict(
            hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=4, num_attention_heads=4,
            image_size=image_size, patch_size=8, layer_norm_eps=1e-6, initializer_range=INIT_STD,
        ),
        text_config=dict(
            hidden_size=WIDTH, encoder_hidden_size=WIDTH, intermediate_size=4 * WIDTH, projection_dim=32,
            num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64,
            vocab_size=len(tokenizer), initializer_range=INIT_STD, is_decoder=True,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            pad_token_id=tokenizer.pad_token_id, sep_token_id=tokenizer.sep_token_id,
            eos_token_id=tokenizer.sep_token_id, bos_token_id=tokenizer.convert_tokens_to_ids("[DEC]"),
        ),
    )  # fmt: skip
    model = BlipForImageTextRetrieval(config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                torch.nn.init.trunc_normal_(module.weight, std=INIT_STD)
        positions = model.vision_model.embeddings.position_embedding
        positions.zero_()
        positions[0, 1:] = 0.5 * _sin_cos_positions(image_size // 8, WIDTH)
    return model


@torch.no_grad()
def regauge(model: BlipForImageTextRetrieval, image_tokens: torch.Tensor) -> None:
    """Centre the value vectors of every cross-attention, leaving the match score unchanged.

    Probabilities sum to 1, so a constant added to all values only shifts the output, and
    dTarget/dP carries an arbitrary offset per head. Here the mean patch gets value zero: a
    positive gradient then says "more than the mean patch". The two ITM rows are made mirror
    images, which keeps their difference and hence the match probability.

    Args:
        image_tokens: (n, 1 + patches, width) vision outputs of typical pictures.
    """
    mean_patch = image_tokens[:, 1:].mean(dim=(0, 1))
    for layer in model.text_encoder.encoder.layer:
        cross = layer.crossattention
        mean_value = cross.self.value(mean_patch)
        cross.self.value.bias -= mean_value
        cross.output.dense.bias += cross.output.dense.weight @ mean_value
    for parameter in (model.itm_head.weight, model.itm_head.bias):
        half = (parameter[1] - parameter[0]) / 2
        parameter[0], parameter[1] = -half, half
