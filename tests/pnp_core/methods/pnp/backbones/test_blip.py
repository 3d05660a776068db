import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, BlipForImageTextRetrieval

from pnp_core.devices import resolve_device
from pnp_core.errors import CheckpointError, UnknownNameError, UsageError
from pnp_core.methods.pnp.backbones import fusion, load_backbone, locate_checkpoint
from pnp_core.methods.pnp.config import BackboneConfig, CaptionConfig, DropoutConfig
from pnp_core.methods.pnp.dropout import salience_dropout
from pnp_core.methods.pnp.prompts import build_prompts, stack_prompts
from pnp_core.methods.pnp.salience import all_salience, salience
from tests.models import LARGE, save_random_blip
from tests.pnp_core.methods.pnp.backbones.reference import FullBackward
from tests.processes import run_script

NAMES = ["hot-air balloon", "car", "ice cream"]


@pytest.fixture(scope="module")
def reference(random_blip: Path) -> FullBackward:
    return FullBackward(BlipForImageTextRetrieval.from_pretrained(random_blip).eval())


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def test_image_tokens_and_match_score_equal_the_stock_forward(backbone, random_blip, pixels):
    stock = BlipForImageTextRetrieval.from_pretrained(random_blip).eval()
    prompts = build_prompts(NAMES, CaptionConfig(), backbone)
    batch = stack_prompts([prompts, prompts])
    with torch.no_grad():
        expected = stock(
            input_ids=prompts.ids.expand(2, -1),
            attention_mask=prompts.mask.long().expand(2, -1),
            pixel_values=pixels,
            interpolate_pos_encoding=True,
        )
    tokens = backbone.encode_image(pixels)
    match = backbone.match(tokens, batch.ids, batch.mask, [0])
    torch.testing.assert_close(tokens, expected.last_hidden_state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(match.logits[:, 0], expected.itm_score[:, 1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(match.itm[:, 0], expected.itm_score.softmax(-1)[:, 1], rtol=1e-5, atol=1e-5)


def test_fused_and_plain_attention_give_the_same_image_tokens(backbone, pixels, monkeypatch):
    plain = backbone.encode_image(pixels)
    monkeypatch.setattr(fusion, "PLAIN_ATTENTION_TOKENS", 0)
    torch.testing.assert_close(backbone.encode_image(pixels), plain, rtol=1e-5, atol=1e-5)


def test_norms_of_the_image_encoder_are_those_of_training_whatever_config_says(random_blip, backbone, pixels, tmp_path):
    copy = copy_of(random_blip, tmp_path)
    edit_config(copy, lambda c: c["vision_config"].pop("layer_norm_eps"))
    config = BackboneConfig(checkpoint=str(copy), image_size=48)
    silent = load_backbone(config, locate_checkpoint(config), "cpu")
    assert torch.equal(silent.encode_image(pixels), backbone.encode_image(pixels))


def test_first_token_of_a_caption_becomes_enc(backbone):
    ids = backbone.tokenize("A picture of car").ids
    assert backbone._tokenizer.convert_ids_to_tokens(ids)[0] == "[ENC]"


# One short caption takes the way that carries W_k and W_v over to the text side, more take the other.
@pytest.mark.parametrize(("names", "mode"), [(NAMES, "joint"), (NAMES, "per_class"), (["car"], "joint")])
@pytest.mark.parametrize(("layer", "head"), [(0, 0), (0, 1), (1, 1)])
def test_pruned_graph_equals_plain_full_backward(backbone, reference, pixels, names, mode, layer, head):
    prompts = build_prompts(names, CaptionConfig(mode=mode), backbone)
    found = salience(backbone, backbone.encode_image(pixels), stack_prompts([prompts] * 2), layer, head)
    for b in range(2):
        maps, rank = reference.class_maps(pixels[b], prompts, layer, head)
        assert relative_error(found.maps[b], maps) <= 1e-5
        assert relative_error(found.rank[b], rank) <= 1e-5


@pytest.mark.parametrize("mode", ["joint", "per_class"])
def test_dropout_drops_the_same_patches_as_plain_full_backward(backbone, reference, pixels, mode):
    prompts = build_prompts(NAMES, CaptionConfig(mode=mode), backbone)
    config = DropoutConfig(iterations=4, amount=3)
    found = salience_dropout(backbone, pixels, stack_prompts([prompts] * 2), config, 1, 0)
    for b in range(2):
        maps, dropped = reference.dropout(pixels[b], prompts, 1, 0, iterations=4, count=3, patch=8)
        assert torch.equal(found.dropped[b], dropped)
        assert relative_error(found.maps[b], maps) <= 1e-5


def test_all_layer_head_maps_of_one_pass_equal_single_passes(backbone, pixels):
    prompts = stack_prompts([build_prompts(NAMES, CaptionConfig(mode="per_class"), backbone)] * 2)
    tokens = backbone.encode_image(pixels)
    together, itm = all_salience(backbone, tokens, prompts, [0, 1])
    assert together.shape[:3] == (2, 2, 2)
    for layer in range(2):
        for head in range(2):
            single = salience(backbone, tokens, prompts, layer, head)
            torch.testing.assert_close(together[:, layer, head], single.maps, rtol=1e-4, atol=1e-9)
            torch.testing.assert_close(itm, single.itm)


def test_last_layer_gradcam_is_exactly_zero_for_class_tokens(backbone, pixels):
    prompts = stack_prompts([build_prompts(NAMES, CaptionConfig(), backbone)] * 2)
    found = salience(backbone, backbone.encode_image(pixels), prompts, backbone.layers - 1, 0)
    assert float(found.maps.abs().max()) == 0.0


def test_batching_pictures_with_different_captions_changes_no_map(backbone, pixels):
    config = CaptionConfig(mode="per_class")
    few, many = build_prompts(["car"], config, backbone), build_prompts(NAMES, config, backbone)
    tokens = backbone.encode_image(pixels)
    together = salience(backbone, tokens, stack_prompts([few, many]), 0, 0)
    alone = salience(backbone, tokens[:1], stack_prompts([few]), 0, 0)
    torch.testing.assert_close(together.maps[:1, :1], alone.maps, rtol=1e-5, atol=1e-9)
    assert float(together.maps[0, 1:].abs().max()) == 0.0


def test_nothing_is_recorded_below_the_wanted_layer(backbone, pixels):
    prompts = stack_prompts([build_prompts(NAMES, CaptionConfig(), backbone)] * 2)
    match = backbone.match(backbone.encode_image(pixels), prompts.ids, prompts.mask, [1])
    assert match.probabilities[0].is_leaf
    assert match.probabilities[0].requires_grad


def test_other_resolution_interpolates_positions_as_the_stock_model(random_blip):
    config = BackboneConfig(checkpoint=str(random_blip), image_size=64)
    larger = load_backbone(config, locate_checkpoint(config), "cpu")
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    stock = BlipForImageTextRetrieval.from_pretrained(random_blip).eval()
    with torch.no_grad():
        expected = stock.vision_model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
    assert larger.grid == (8, 8)
    torch.testing.assert_close(larger.encode_image(pixels), expected, rtol=1e-5, atol=1e-5)


def test_half_precision_image_encoder_keeps_the_text_side_in_float32(random_blip, pixels):
    config = BackboneConfig(checkpoint=str(random_blip), image_size=48, dtype="bfloat16")
    half = load_backbone(config, locate_checkpoint(config), "cpu")
    tokens = half.encode_image(pixels)
    assert tokens.dtype == torch.float32
    full = BackboneConfig(checkpoint=str(random_blip), image_size=48)
    exact = load_backbone(full, locate_checkpoint(full), "cpu").encode_image(pixels)
    assert 0 < relative_error(tokens, exact) < 0.05


def copy_of(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def edit_config(folder: Path, change) -> None:
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (folder / "config.json").write_text(json.dumps(values))


def refused(folder: Path, heads: int | None = None) -> str:
    with pytest.raises(CheckpointError) as error:
        locate_checkpoint(BackboneConfig(checkpoint=str(folder), heads=heads))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_revision_follows_content_not_place(random_blip, tmp_path):
    def revision(folder):
        return locate_checkpoint(BackboneConfig(checkpoint=str(folder))).revision

    copy = copy_of(random_blip, tmp_path)
    assert revision(copy) == revision(random_blip)
    weights = load_file(copy / "model.safetensors")
    weights["itm_head.bias"] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert revision(copy) != revision(random_blip)


def test_other_head_count_than_expected_is_refused(random_blip):
    assert "has 2 cross-attention heads, the configuration expects 12" in refused(random_blip, heads=12)


def test_config_without_head_count_is_refused(random_blip, tmp_path):
    copy = copy_of(random_blip, tmp_path)
    edit_config(copy, lambda c: c["text_config"].pop("num_attention_heads"))
    assert "num_attention_heads" in refused(copy)


def test_model_of_another_type_is_refused(tmp_path):
    BertModel(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path)
    assert "is a 'bert' model, not blip" in refused(tmp_path)


def test_blip_without_match_head_is_refused(random_blip, tmp_path):
    copy = copy_of(random_blip, tmp_path)
    weights = load_file(copy / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("itm_head")}
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    assert "not an image-text-matching BLIP: it lacks itm_head.weight" in refused(copy)


def test_half_precision_checkpoint_computes_the_text_side_in_float32(random_blip, tmp_path, pixels):
    stock = BlipForImageTextRetrieval.from_pretrained(random_blip).half()
    copy = copy_of(random_blip, tmp_path)
    stock.save_pretrained(copy)
    config = BackboneConfig(checkpoint=str(copy), image_size=48)
    half = load_backbone(config, locate_checkpoint(config), "cpu")
    prompts = stack_prompts([build_prompts(NAMES, CaptionConfig(), half)] * 2)
    assert salience(half, half.encode_image(pixels), prompts, 0, 0).maps.dtype == torch.float32


def test_pickled_weights_are_read_as_tensors_alone(random_blip, tmp_path, pixels):
    copy = copy_of(random_blip, tmp_path)
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    config = BackboneConfig(checkpoint=str(copy), image_size=48)
    pickled = load_backbone(config, locate_checkpoint(config), "cpu")
    plain = BackboneConfig(checkpoint=str(random_blip), image_size=48)
    safe = load_backbone(plain, locate_checkpoint(plain), "cpu")
    assert torch.equal(pickled.encode_image(pixels), safe.encode_image(pixels))


def split(folder: Path, name: str = "model.safetensors", save=save_file) -> list[Path]:
    """Write a folder's weights in two parts with an index, as transformers writes large models."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem, _, ending = name.partition(".")
    names, index, parts = sorted(weights), {}, []
    for i, half in enumerate((names[::2], names[1::2]), start=1):
        parts.append(folder / f"{stem}-0000{i}-of-00002.{ending}")
        save({n: weights[n] for n in half}, parts[-1], *([{"format": "pt"}] if save is save_file else []))
        index |= dict.fromkeys(half, parts[-1].name)
    (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index}))
    return parts


@pytest.mark.parametrize(("name", "save"), [("model.safetensors", save_file), ("pytorch_model.bin", torch.save)])
def test_weights_in_parts_are_those_in_one_file(random_blip, tmp_path, pixels, name, save):
    copy = copy_of(random_blip, tmp_path)
    split(copy, name, save)
    config = BackboneConfig(checkpoint=str(copy), image_size=48)
    parts = load_backbone(config, locate_checkpoint(config), "cpu")
    plain = BackboneConfig(checkpoint=str(random_blip), image_size=48)
    whole = load_backbone(plain, locate_checkpoint(plain), "cpu")
    assert torch.equal(parts.encode_image(pixels), whole.encode_image(pixels))


def test_bundled_model_in_parts_is_the_bundled_model(shared_data, tmp_path):
    run_script(shared_data / "wild/sharded-checkpoint/make.py", tmp_path / "parts")
    found = locate_checkpoint(BackboneConfig(checkpoint=str(tmp_path / "parts")))
    bundled = locate_checkpoint(BackboneConfig())
    assert (found.layers, found.heads) == (bundled.layers, bundled.heads)
    load_backbone(BackboneConfig(checkpoint=str(tmp_path / "parts")), found, "cpu")


def test_revision_of_weights_in_parts_follows_every_part(random_blip, tmp_path):
    copy = copy_of(random_blip, tmp_path)
    parts = split(copy)
    before = locate_checkpoint(BackboneConfig(checkpoint=str(copy))).revision
    weights = load_file(parts[1])
    save_file({name: tensor + 1 for name, tensor in weights.items()}, parts[1], {"format": "pt"})
    assert locate_checkpoint(BackboneConfig(checkpoint=str(copy))).revision != before


def test_part_that_is_missing_is_named(random_blip, tmp_path):
    copy = copy_of(random_blip, tmp_path)
    split(copy)[1].unlink()
    assert "lacks model-00002-of-00002.safetensors, which model.safetensors.index.json names" in refused(copy)


@pytest.mark.parametrize(
    "text",
    [
        *("{}", "[1]", "no json", '{"weight_map": {"a": "../b.safetensors"}}', '{"weight_map": {"a": "\\u0000"}}'),
        *('{"weight_map": {"a": 1}}', '{"weight_map": {"a": null, "b": "model.bin"}}', '{"weight_map": {"a": ["b"]}}'),
    ],
)
def test_index_that_is_none_is_refused(random_blip, tmp_path, text):
    copy = copy_of(random_blip, tmp_path)
    split(copy)
    (copy / "model.safetensors.index.json").write_text(text)
    assert "model.safetensors.index.json' " in refused(copy)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "model-00001-of-00002.safetensors"]
)
def test_pointer_of_git_lfs_is_named(random_blip, tmp_path, name):
    copy = copy_of(random_blip, tmp_path)
    if "-of-" in name:
        split(copy)
    (copy / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert f"{name}' is a git-lfs pointer, not the file itself: `git lfs pull` fetches it" in refused(copy)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_code_in_pickled_weights_is_never_run(random_blip, tmp_path):
    copy = copy_of(random_blip, tmp_path)
    (copy / "model.safetensors").unlink()
    torch.save({"itm_head.weight": Trap(tmp_path / "sprung")}, copy / "pytorch_model.bin")
    assert "is no file of weights alone" in refused(copy)
    assert not (tmp_path / "sprung").exists()
    torch.load(copy / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "sprung").exists(), "the trap works"


def test_folder_without_tokenizer_is_refused(random_blip, tmp_path):
    copy = copy_of(random_blip, tmp_path)
    (copy / "tokenizer.json").unlink()
    assert "has no tokenizer: it needs one of tokenizer.json, vocab.txt, vocab.json" in refused(copy)


def test_folder_without_weights_is_refused(random_blip, tmp_path):
    copy = copy_of(random_blip, tmp_path)
    (copy / "model.safetensors").unlink()
    assert "has neither model.safetensors nor pytorch_model.bin" in refused(copy)


def test_truncated_weights_are_refused(random_blip, tmp_path):
    copy = copy_of(random_blip, tmp_path)
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "no readable safetensors file" in refused(copy)


def test_weights_of_another_shape_are_refused(random_blip, tmp_path):
    copy = copy_of(random_blip, tmp_path)
    edit_config(copy, lambda c: c["vision_config"].update(intermediate_size=128))
    config = BackboneConfig(checkpoint=str(copy), image_size=48)
    with pytest.raises(CheckpointError, match=r"cannot be loaded|lacks weights"):
        load_backbone(config, locate_checkpoint(config), "cpu")


def test_missing_weight_is_refused(random_blip, tmp_path):
    copy = copy_of(random_blip, tmp_path)
    weights = load_file(copy / "model.safetensors")
    del weights["vision_model.post_layernorm.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    config = BackboneConfig(checkpoint=str(copy), image_size=48)
    with pytest.raises(CheckpointError, match=r"lacks weights: vision_model\.post_layernorm\.weight"):
        load_backbone(config, locate_checkpoint(config), "cpu")


def test_tokenizer_without_enc_is_refused(random_blip, tmp_path):
    copy = copy_of(random_blip, tmp_path)
    text = (copy / "tokenizer.json").read_text().replace("[ENC]", "[ODD]")
    (copy / "tokenizer.json").write_text(text)
    (copy / "tokenizer_config.json").write_text((copy / "tokenizer_config.json").read_text().replace("[ENC]", "[ODD]"))
    config = BackboneConfig(checkpoint=str(copy), image_size=48)
    with pytest.raises(CheckpointError, match=r"\[ENC\]"):
        load_backbone(config, locate_checkpoint(config), "cpu")


def test_hub_id_without_network_says_what_to_do():
    said = refused(Path("owner/name"))
    assert said.startswith("weights 'owner/name' are no local folder, and not to be had from the hub")
    assert "HF_HUB_OFFLINE is set" in said
    assert said.endswith("give their folder as --checkpoint, or leave that out for the bundled model")


def test_image_size_must_be_a_multiple_of_the_patch_size(random_blip):
    config = BackboneConfig(checkpoint=str(random_blip), image_size=50)
    with pytest.raises(CheckpointError, match="multiple of the model's patch size 8"):
        load_backbone(config, locate_checkpoint(config), "cpu")


def test_unknown_backbone_names_those_there_are():
    with pytest.raises(
        UnknownNameError, match="unknown backbone 'blup'; did you mean 'blip'\\? available: albef, blip"
    ):
        locate_checkpoint(BackboneConfig(name="blup"))


def test_unavailable_device_is_refused():
    with pytest.raises(UsageError, match="device 'warp' is not available"):
        resolve_device("warp")


@pytest.mark.slow
def test_pruned_graph_equals_plain_full_backward_at_blip_large_336(tmp_path):
    folder = save_random_blip(tmp_path, LARGE)
    config = BackboneConfig(checkpoint=str(folder), image_size=336, heads=12)
    large = load_backbone(config, locate_checkpoint(config), "cpu")
    image = torch.randn(3, 336, 336, generator=torch.Generator().manual_seed(2))
    prompts = build_prompts(NAMES, CaptionConfig(), large)
    found = salience_dropout(large, image[None], stack_prompts([prompts]), DropoutConfig(iterations=2, amount=10), 7, 9)
    reference = FullBackward(BlipForImageTextRetrieval.from_pretrained(folder).eval())
    maps, dropped = reference.dropout(image, prompts, 7, 9, iterations=2, count=10, patch=16)
    assert torch.equal(found.dropped[0], dropped)
    assert relative_error(found.maps[0], maps) <= 1e-5
