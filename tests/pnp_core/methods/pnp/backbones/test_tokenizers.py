"""Token spans with the real vocabularies."""

from __future__ import annotations

import shutil

import pytest
import torch
from transformers import RobertaTokenizer

from pnp_core.inputs.cards import load_card
from pnp_core.methods.pnp.backbones import load_backbone, locate_checkpoint
from pnp_core.methods.pnp.backbones.convert import convert_weights
from pnp_core.methods.pnp.config import BackboneConfig, CaptionConfig
from pnp_core.methods.pnp.prompts import build_prompts
from tests.pnp_core.methods.pnp.backbones.originals import random_state
from tests.pnp_core.methods.pnp.backbones.small import bridgetower_config, save_bridgetower

NAMES = ["hot-air balloon", "tv monitor", "dining table", "person", "skis", "café", "teddy bear"]


@pytest.fixture(scope="module", params=["albef", "blip", "bridgetower", "mplug"])
def real(request, shared_data, tmp_path_factory):
    folder, tokenizers = tmp_path_factory.mktemp(request.param), shared_data / "tokenizers"
    if request.param == "bridgetower":
        config = bridgetower_config()
        config.text_config.vocab_size = 50265
        out, _ = save_bridgetower(folder, config)
        files = [str(shutil.copy(tokenizers / "roberta-base" / f, folder)) for f in ("vocab.json", "merges.txt")]
        RobertaTokenizer(*files).save_pretrained(out)
    else:
        torch.save({"model": random_state(request.param)}, folder / "released.pth")
        vocabulary = str(tokenizers / "bert-base-uncased")
        out = convert_weights(folder / "released.pth", request.param, vocabulary, folder / "out").folder
    config = BackboneConfig(name=request.param, checkpoint=str(out), image_size=48)
    return request.param, load_backbone(config, locate_checkpoint(config), "cpu")


@pytest.mark.parametrize("mode", ["joint", "per_class"])
def test_spans_spell_the_class_names(real, mode):
    _, backbone = real
    prompts = build_prompts(NAMES, CaptionConfig.model_validate({"mode": mode}), backbone)
    for c, name in enumerate(NAMES):
        n = int(prompts.caption_of_class[c])
        encoded = backbone.tokenize(prompts.texts[n])
        own = [encoded.offsets[i] for i in prompts.class_tokens[c, n].nonzero().flatten().tolist()]
        assert prompts.texts[n][own[0][0] : own[-1][1]].strip() == name
        assert prompts.class_tokens[c].sum() == len(own)
    assert int(prompts.class_tokens.sum(0).max()) == 1, "no token belongs to two classes"


@pytest.mark.parametrize("card", ["voc21", "context59", "coco-object", "coco-stuff", "ade20k"])
def test_captions_in_the_authors_words_name_every_class_by_tokens_of_its_own(real, card):
    _, backbone = real
    words = load_card(card).captions_in("authors")  # ADE20K has a word twice
    prompts = build_prompts(words, CaptionConfig(), backbone)
    assert " ".join(text.removeprefix("A picture of ") for text in prompts.texts) == " ".join(words)
    assert prompts.class_tokens.any(-1).sum(-1).tolist() == [1] * len(words)
    assert int(prompts.class_tokens.sum(0).max()) == 1, "no token belongs to two classes"


def test_special_tokens_are_those_the_model_was_trained_with(real):
    name, backbone = real
    ids = backbone.tokenize("A picture of car").ids
    assert (ids[0], ids[-1]) == {"blip": (30523, 102), "bridgetower": (0, 2)}.get(name, (101, 102))
    assert len(ids) == 6
