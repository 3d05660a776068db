"""The released file: every tensor is taken, dropped by name, or refused; what is loaded computes what formulas say."""

import json

import pytest
import torch

from pnp_core.errors import CheckpointError, UsageError
from pnp_core.methods.simzss.tower import SimzssModel
from pnp_core.methods.simzss.weights import convert, expected, load_towers, locate, sizes_of
from tests.pnp_core.methods.simzss.released import (
    patches_by_hand,
    random_state,
    save,
    shapes,
    text_by_hand,
    without_denoiser,
)

CAT, ICE, CREAM = 2368, 733, 3867
"""Of CLIP's vocabulary, as published: words of their own."""


@pytest.fixture(scope="module")
def state():
    return random_state()


def model_of(folder, dtype="float32"):
    return SimzssModel(load_towers(locate(str(folder))), torch.device("cpu"), dtype)


@pytest.fixture(scope="module")
def converted(state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    return convert(save(folder, state), folder / "simzss")


def test_all_tensors_are_taken_but_those_of_training(converted, state):
    assert (converted.kept, converted.dropped) == (len(state) - 4, {"of training alone": 4})
    assert json.loads((converted.folder / "config.json").read_text()) == {
        "model_type": "simzss", "width": 128, "grid": 4, "text_width": 64, "denoiser": True,
    }  # fmt: skip
    assert sorted(file.name for file in converted.folder.iterdir()) == ["config.json", "model.safetensors"]


def test_the_released_sizes_have_as_many_tensors_as_the_released_file():
    released = shapes(width=768, text=512, grid=37)
    assert len(released) == 341
    kept = {name: shape for name, shape in released.items() if "logit" not in name and "_ema" not in name}
    sizes = sizes_of(kept)
    assert (sizes.width, sizes.grid, sizes.text_width, sizes.denoiser) == (768, 37, 512, True)
    assert expected(sizes) == kept


@pytest.mark.parametrize("size", [(56, 56), (42, 84), (28, 14)])
def test_patches_are_those_of_the_formulas(converted, state, size):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(3))
    found = model_of(converted.folder).encode_pixels(image[None])[0]
    assert found.shape == (size[0] // 14, size[1] // 14, 128)
    torch.testing.assert_close(found.flatten(0, 1), patches_by_hand(state, image), rtol=0, atol=1e-5)


def test_texts_are_those_of_the_formulas(converted, state):
    found = model_of(converted.folder).encode_texts(["cat", "ice cream"])
    wanted = torch.stack([text_by_hand(state, words) for words in ([CAT], [ICE, CREAM])])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}])
def test_a_model_without_denoising_block_is_one_without_that_step(state, tmp_path, wrap):
    plain = without_denoiser(state)
    torch.save(wrap(plain), tmp_path / "plain.pt")
    folder = convert(tmp_path / "plain.pt", tmp_path / "out").folder
    assert not json.loads((folder / "config.json").read_text())["denoiser"]
    image = torch.rand(3, 28, 42, generator=torch.Generator().manual_seed(3))
    found = model_of(folder).encode_pixels(image[None])[0].flatten(0, 1)
    torch.testing.assert_close(found, patches_by_hand(plain, image), rtol=0, atol=1e-5)
    with_one = patches_by_hand(state, image)
    assert not torch.allclose(found, with_one, atol=1e-2)


def test_half_precision_is_near(converted):
    image = torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(3))
    exact = model_of(converted.folder).encode_pixels(image)
    half = model_of(converted.folder, "bfloat16").encode_pixels(image)
    assert half.dtype == torch.float32
    assert (exact * half).sum(-1).min() > 0.98


def test_the_revision_names_the_content(converted, state, tmp_path):
    same = convert(save(tmp_path, state), tmp_path / "same").folder
    other = convert(save(tmp_path, random_state(1)), tmp_path / "other").folder
    first = locate(str(converted.folder)).revision
    assert locate(str(same)).revision == first
    assert locate(str(other)).revision != first


class _Code:
    def __reduce__(self):
        return print, ("code ran",)


def changed(state, **changes):
    return {name: changes.get(name, tensor) for name, tensor in state.items()}


VIT, TEXT = "visual.vit.model.", "text.transformer.resblocks."


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda s: s.pop(f"{VIT}blocks.3.ls1.gamma"), "tensors 1 missing (visual.vit.model.blocks.3.ls1.gamma ...)"),
        (lambda s: s.pop(f"{VIT}pos_embed"), "it has no tensor visual.vit.model.pos_embed"),
        (lambda s: s.pop("visual.pos_embed"), "tensors 1 missing (visual.pos_embed ...)"),
        (lambda s: s.pop("visual.denoiser.norm1.bias"), "tensors 1 missing (visual.denoiser.norm1.bias ...)"),
        (lambda s: s.update({"visual.head.weight": torch.ones(2)}), "tensors 1 not known (visual.head.weight ...)"),
        (lambda s: s.update({"text.text_projection": torch.ones(64, 64)}), "1 of another shape (text.text_projection"),
        (lambda s: s.update({f"{VIT}pos_embed": torch.ones(1, 15, 128)}), "15 patches, which are no square"),
        (lambda s: s.update({f"{VIT}pos_embed": torch.ones(16, 128)}), "of another shape (visual.vit.model.pos_embed"),
        (lambda s: s.update({f"{VIT}pos_embed": torch.ones(1, 16, 100)}), "100 channels, which are no heads of 64"),
        (lambda s: [s.pop(n) for n in list(s) if n.startswith(f"{TEXT}11.")], "it has 11 text layers"),
        (lambda s: [s.pop(n) for n in list(s) if n.startswith(f"{VIT}blocks.0.")], "it has 11 DINOv2 layers"),
        (
            lambda s: [s.update({n.replace(".11.", ".12."): s[n]}) for n in list(s) if n.startswith(f"{TEXT}11.")],
            "it has 13 text layers",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_one_line(state, tmp_path, spoil, says):
    spoiled = dict(state)
    spoil(spoiled)
    with pytest.raises(CheckpointError) as error:
        convert(save(tmp_path, spoiled), tmp_path / "out")
    assert says in str(error.value)
    assert "is no SimZSS model as released" in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["simzss.pt"]


def test_code_in_a_file_is_refused_and_never_run(state, tmp_path, capfd):
    torch.save({**state, "extra": _Code()}, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match="with more in it than tensors"):
        convert(tmp_path / "bad.pt", tmp_path / "out")
    assert "code ran" not in capfd.readouterr().out


def test_a_folder_that_is_there_is_not_written_over(state, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        convert(save(tmp_path, state), tmp_path / "out")


def rewrite(folder, to, **config):
    """A copy of a checkpoint folder with another configuration."""
    to.mkdir()
    (to / "model.safetensors").symlink_to(folder / "model.safetensors")
    values = json.loads((folder / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**values, **config}))
    return str(to)


def test_what_is_no_such_folder_is_one_line(converted, tmp_path):
    file = tmp_path / "file.pt"
    file.touch()
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "config.json").write_text((converted.folder / "config.json").read_text())
    cases = {
        None: "simzss has no bundled weights: get its authors' checkpoint, make a folder of it with `pnp-ovss convert",
        "nowhere": "no SimZSS model in 'nowhere': config.json is missing",
        str(file): "is a file; make a folder of it with",
        str(cut): "model.safetensors is missing",
        rewrite(converted.folder, tmp_path / "a", width=64): "holds other weights than its config.json says: tensors",
        rewrite(converted.folder, tmp_path / "b", denoiser=False): "13 not known (visual.denoiser.attn.proj.bias",
        rewrite(converted.folder, tmp_path / "c", width=100): "width: Input should be a multiple of 64",
        rewrite(converted.folder, tmp_path / "d", model_type="blip"): "model_type: Input should be 'simzss'",
    }
    for checkpoint, says in cases.items():
        with pytest.raises(CheckpointError) as error:
            locate(checkpoint)
        assert says in str(error.value)
        assert "\n" not in str(error.value)
    (cut / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="is no readable safetensors file"):
        locate(str(cut))


def test_weights_that_are_no_numbers_are_refused(state, tmp_path):
    broken = changed(state, **{"visual.denoiser.mlp.fc1.bias": torch.full((512,), float("nan"))})
    folder = convert(save(tmp_path, broken), tmp_path / "out").folder
    with pytest.raises(CheckpointError, match=r"NaN or infinity in tensor 'denoiser\.mlp\.fc1\.bias'"):
        load_towers(locate(str(folder)))
