"""The authors' files: every tensor is taken, dropped for a reason, or refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from pnp_core.errors import CheckpointError, UsageError
from pnp_core.methods.pnp.backbones import load_backbone, locate_checkpoint
from pnp_core.methods.pnp.backbones.convert import convert_weights
from pnp_core.methods.pnp.config import BackboneConfig
from tests.pnp_core.methods.pnp.backbones.originals import original_forward, random_state
from tests.pnp_core.methods.pnp.backbones.small import save_vocabulary

MODELS = ("blip", "albef", "mplug")


@pytest.fixture(params=MODELS)
def model(request) -> str:
    return request.param


@pytest.fixture
def vocabulary(tmp_path):
    return str(save_vocabulary(tmp_path / "vocabulary"))


def convert(tmp_path, model, content, vocabulary):
    torch.save(content, tmp_path / "released.pth")
    return convert_weights(tmp_path / "released.pth", model, vocabulary, tmp_path / "out")


def refused(tmp_path, model, content, vocabulary) -> str:
    with pytest.raises(CheckpointError) as error:
        convert(tmp_path, model, content, vocabulary)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
    return str(error.value)


def logit_of_both(tmp_path, model, state) -> tuple[torch.Tensor, torch.Tensor]:
    config = BackboneConfig(name=model, checkpoint=str(tmp_path / "out"), image_size=48)
    backbone = load_backbone(config, locate_checkpoint(config), "cpu")
    image = torch.randn(3, 48, 48, generator=torch.Generator().manual_seed(4))
    ids = torch.tensor(backbone.tokenize("A picture of ice cream").ids)
    found = backbone.match(backbone.encode_image(image[None]), ids[None, None], torch.ones(1, 1, len(ids)).bool(), [])
    floats = {name: tensor.float() for name, tensor in state.items()}
    return found.logits[0, 0], original_forward(model, floats, image, ids)[0][1]


@pytest.mark.parametrize("wrap", [lambda s: {"model": s}, lambda s: {"module": s}, lambda s: s])
def test_converted_file_gives_the_logits_of_the_original(tmp_path, model, wrap, vocabulary):
    state = random_state(model, seed=7)
    convert(tmp_path, model, wrap(state), vocabulary)
    found, expected = logit_of_both(tmp_path, model, state)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_names_of_a_distributed_training_are_read_too(tmp_path, model, vocabulary):
    state = random_state(model)
    convert(tmp_path, model, {f"module.{name}": tensor for name, tensor in state.items()}, vocabulary)
    found, expected = logit_of_both(tmp_path, model, state)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_every_tensor_is_accounted_for(tmp_path, model, vocabulary):
    state = random_state(model)
    done = convert(tmp_path, model, {"model": state}, vocabulary)
    assert {"momentum copies", "training queues", "temperature"} <= set(done.dropped)
    assert done.dropped["training queues"] == 3
    gone = {"blip": 0, "albef": 1, "mplug": 1}[model]  # token types, folded into the positions
    made = sum(2 for name in state if "in_proj_" in name and "_m." not in name)  # queries, keys and values apart
    assert done.kept - made + gone + sum(done.dropped.values()) == len(state)
    config = json.loads((done.folder / "config.json").read_text())
    assert config["model_type"] == model
    assert {f.stat().st_mode & 0o777 for f in done.folder.iterdir()} == {
        (tmp_path / "released.pth").stat().st_mode & 0o777
    }
    assert config["text_config"]["num_attention_heads"] == 12
    assert config["vision_config"]["num_attention_heads"] == 2
    assert sorted(f.name for f in tmp_path.iterdir()) == ["out", "released.pth", "vocabulary"]


def test_release_without_match_head_says_so(tmp_path, model, vocabulary):
    state = {name: tensor for name, tensor in random_state(model).items() if not name.startswith("itm_head")}
    assert "has no image-text-matching head (itm_head)" in refused(tmp_path, model, {"model": state}, vocabulary)


def test_missing_and_unknown_tensors_are_named(tmp_path, model, vocabulary):
    state = random_state(model)
    lost = next(name for name in state if name.endswith("output.LayerNorm.bias"))
    del state[lost]
    odd = "fusion_encoder.surprise" if model == "mplug" else "text_encoder.surprise"
    state["a.surprise"] = state[odd] = torch.zeros(3)
    state["itm_head.bias"] = torch.zeros(5)
    said = refused(tmp_path, model, {"model": state}, vocabulary)
    assert f"1 missing ({lost.replace('bert.', '')} ...)" in said
    assert f"2 not known (a.surprise, {odd} ...)" in said
    assert "1 of another shape (itm_head.bias ...)" in said


@pytest.mark.parametrize("content", [{"model": {}}, [1, 2], {"epoch": 3}])
def test_file_without_tensors_is_refused(tmp_path, content, vocabulary):
    assert "holds no tensors by name" in refused(tmp_path, "blip", content, vocabulary)


@pytest.mark.parametrize("other", MODELS)
def test_file_of_another_model_is_told_apart(tmp_path, model, other, vocabulary):
    if other != model:
        said = refused(tmp_path, model, {"model": random_state(other)}, vocabulary)
        assert said.endswith(f", not {model}: give --backbone {other}")


def test_what_a_file_lacks_is_named(tmp_path, vocabulary):
    said = refused(tmp_path, "blip", {"itm_head.weight": torch.zeros(2, 48)}, vocabulary)
    assert "is no blip model as released: it has no tensor 'vision_model." in said
    state = {n: t for n, t in random_state("albef").items() if "crossattention" not in n}
    assert "it has no cross-attention" in refused(tmp_path, "albef", {"model": state}, vocabulary)


def test_pretrained_mplug_with_language_models_around_its_encoders_is_read_too(tmp_path, vocabulary):
    state = random_state("mplug")
    wrapped = {re.sub(r"^((text|fusion)_encoder)\.", r"\1.bert.", name): tensor for name, tensor in state.items()}
    heads = {f"{kind}_encoder.cls.predictions.bias": torch.zeros(5) for kind in ("text", "fusion")}
    done = convert(tmp_path, "mplug", {"module": {**wrapped, **heads}}, vocabulary)
    assert done.dropped["language-model heads and decoders"] == 2
    assert done.dropped["layers of the fusion encoder that never run"] == 57
    found, expected = logit_of_both(tmp_path, "mplug", state)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_half_precision_files_are_read(tmp_path, model, vocabulary):
    state = {n: t.half() if t.is_floating_point() else t for n, t in random_state(model).items()}
    convert(tmp_path, model, {"module": state}, vocabulary)
    found, expected = logit_of_both(tmp_path, model, state)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_file_that_is_none_is_refused(tmp_path, vocabulary):
    (tmp_path / "junk.pth").write_bytes(b"junk" * 99)
    (tmp_path / "folder.pth").mkdir()
    cases = {"junk.pth": "is no file of weights alone", "gone.pth": "there is no file", "folder.pth": "is a folder"}
    for name, says in cases.items():
        with pytest.raises(CheckpointError, match=says):
            convert_weights(tmp_path / name, "blip", vocabulary, tmp_path / "out")


def test_folder_that_is_there_is_not_touched(tmp_path, vocabulary):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="is there already; name a new folder"):
        convert(tmp_path, "blip", random_state("blip"), vocabulary)


def test_bridgetower_needs_no_conversion(tmp_path, vocabulary):
    with pytest.raises(UsageError, match="weights of bridgetower are published as they are read"):
        convert(tmp_path, "bridgetower", {}, vocabulary)


def test_vocabulary_that_is_not_to_be_had_is_one_clear_line(tmp_path):
    said = refused(tmp_path, "albef", {"model": random_state("albef")}, "no/where")
    assert "'no/where' is no file, and not to be had from the hub (HF_HUB_OFFLINE is set)" in said
    assert "give --tokenizer a vocab.txt of bert-base-uncased" in said


def test_another_vocabulary_is_refused(tmp_path, vocabulary):
    words = (Path(vocabulary) / "vocab.txt").read_text().splitlines()
    for other in (words[::-1], words[:-1]):
        (tmp_path / "other.txt").write_text("\n".join(other) + "\n")
        said = refused(tmp_path, "albef", {"model": random_state("albef")}, str(tmp_path / "other.txt"))
        assert "is not the one of bert-base-uncased" in said


def test_file_of_weights_given_as_checkpoint_says_how_to_convert_it(tmp_path):
    torch.save({}, tmp_path / "ALBEF.pth")
    for path, says in (
        (tmp_path / "ALBEF.pth", "is a file; make a folder of it"),
        ("ALBEF.pth", "get it, make a folder"),
    ):
        with pytest.raises(CheckpointError, match=says) as error:
            locate_checkpoint(BackboneConfig(name="albef", checkpoint=str(path)))
        assert "convert-weights" in str(error.value)
