"""Prompt tensors: both towers against forward passes written from the formulas, and what does not fit."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pnp_core.candidates.config import CandidatesConfig
from pnp_core.errors import CaptionTooLongError, CheckpointError, UsageError
from pnp_core.methods.naclip.config import NaclipConfig
from pnp_core.openclip.config import ClipConfig, ClipWeights
from pnp_core.openclip.last_block import run_last_block
from pnp_core.openclip.model import clip_revision, load_clip
from tests.clips import random_clip, save_random_clip

CAPTIONS = ["a picture of car", "ice cream"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_clip(tmp_path_factory.mktemp("clip") / "base")


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def written(path, visual=(), text=(), base="base", seed=5):
    """A file of prompts of some shapes by layer."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {f"{tower}.{i}": s for tower, own in (("visual", visual), ("text", text)) for i, s in enumerate(own)}
    tensors = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    save_file(tensors, path, metadata={"base_model": base} if base else None)
    return tensors


def config(folder, file):
    return ClipWeights(model=f"local-dir:{folder}", prompts=str(file))


def layer_norm(x, w, name):
    x = x - x.mean(-1, keepdim=True)
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def block(x, w, name, heads, causal=False):
    """x + MHA(LN(x)), then x + W2 gelu(W1 LN(x)), head by head."""
    y = layer_norm(x, w, f"{name}.ln_1")
    d = x.shape[-1] // heads
    query, key, value = (y @ w[f"{name}.attn.in_proj_weight"].T + w[f"{name}.attn.in_proj_bias"]).chunk(3, -1)
    seen = []
    for h in range(heads):
        own = slice(h * d, (h + 1) * d)
        scores = query[..., own] @ key[..., own].transpose(1, 2) / math.sqrt(d)
        if causal:
            scores = scores + torch.full(scores.shape[1:], -torch.inf).triu(1)
        powers = torch.exp(scores - scores.amax(-1, keepdim=True))
        seen.append(powers / powers.sum(-1, keepdim=True) @ value[..., own])
    x = x + torch.cat(seen, -1) @ w[f"{name}.attn.out_proj.weight"].T + w[f"{name}.attn.out_proj.bias"]
    y = layer_norm(x, w, f"{name}.ln_2") @ w[f"{name}.mlp.c_fc.weight"].T + w[f"{name}.mlp.c_fc.bias"]
    y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
    return x + y @ w[f"{name}.mlp.c_proj.weight"].T + w[f"{name}.mlp.c_proj.bias"]


def unit(x):
    return x / (x**2).sum(-1, keepdim=True).sqrt()


def visual_by_hand(w, pixels, prompts):
    """CLS, 4 x 4 patches of 8 pixels, prompts; three blocks of three heads."""
    cut = pixels.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(2, 16, -1)
    patches = cut @ w["visual.conv1.weight"].flatten(1).T
    x = torch.cat([w["visual.class_embedding"].expand(2, 1, -1), patches], 1) + w["visual.positional_embedding"]
    n = len(prompts[0])
    x = layer_norm(torch.cat([x, prompts[0].expand(2, -1, -1)], 1), w, "visual.ln_pre")
    for layer in range(3):
        if 0 < layer < len(prompts):
            x = torch.cat([x[:, :-n], prompts[layer].expand(2, -1, -1)], 1)
        x = block(x, w, f"visual.transformer.resblocks.{layer}", 3)
    return unit(layer_norm(x[:, 0], w, "visual.ln_post") @ w["visual.proj"])


def texts_by_hand(w, rows, end, prompts):
    """Start, prompts, the rest of each caption moved behind them; two causal blocks of two heads."""
    m = len(prompts[0])
    found = []
    for row in rows:
        embedded = w["token_embedding.weight"][row]
        x = torch.cat([embedded[:1], prompts[0], embedded[1:]])[: len(row)] + w["positional_embedding"]
        x = x[None]
        for layer in range(2):
            if 0 < layer < len(prompts):
                x = torch.cat([x[:, :1], prompts[layer][None], x[:, 1 + m :]], 1)
            x = block(x, w, f"transformer.resblocks.{layer}", 2, causal=True)
        place = row.tolist().index(end) + m
        found.append(unit(layer_norm(x[0, place], w, "ln_final") @ w["text_projection"]))
    return torch.stack(found)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_visual_prompts_by_hand_shallow_and_deep(folder, pixels, tmp_path, layers):
    tensors = written(tmp_path / "p", visual=[(2, 24)] * layers)
    clip = load_clip(config(folder, tmp_path / "p"), "cpu")
    expected = visual_by_hand(random_clip().state_dict(), pixels, [tensors[f"visual.{i}"] for i in range(layers)])
    assert clip.encode_pixels(pixels).numpy() == pytest.approx(expected.numpy(), abs=1e-5)
    plain = load_clip(ClipWeights(model=f"local-dir:{folder}"), "cpu")
    assert (clip.encode_pixels(pixels) - plain.encode_pixels(pixels)).abs().max() > 0.01
    assert (clip.encode_texts(CAPTIONS) == plain.encode_texts(CAPTIONS)).all()


@pytest.mark.parametrize("layers", [1, 2])
def test_text_prompts_by_hand_shallow_and_deep(folder, pixels, tmp_path, layers):
    tensors = written(tmp_path / "p", text=[(3, 16)] * layers)
    clip = load_clip(config(folder, tmp_path / "p"), "cpu")
    rows, model = clip._tokenizer(CAPTIONS), random_clip()
    prompts = [tensors[f"text.{i}"] for i in range(layers)]
    expected = texts_by_hand(model.state_dict(), rows, model.text_eos_id, prompts)
    assert clip.encode_texts(CAPTIONS).numpy() == pytest.approx(expected.numpy(), abs=1e-5)
    plain = load_clip(ClipWeights(model=f"local-dir:{folder}"), "cpu")
    assert (clip.encode_pixels(pixels) == plain.encode_pixels(pixels)).all()


def test_prompts_are_seen_by_regions_and_dense_methods_and_dropped_from_the_grid(folder, pixels, tmp_path):
    """One last block with attention k k^T by hand: prompts are attended to, and none is a patch."""
    written(tmp_path / "p", visual=[(2, 24)] * 3)
    clip = load_clip(config(folder, tmp_path / "p"), "cpu")
    vit = clip.vit("x")
    trunk = vit.trunk(pixels)
    tokens = run_last_block(vit.last, trunk, "kk", False)
    assert (trunk.extra, tokens.shape[1], trunk.patches(tokens).shape) == (2, 19, (2, 16, 24))
    w, name = random_clip().state_dict(), "visual.transformer.resblocks.2"
    y = layer_norm(trunk.tokens, w, f"{name}.ln_1")
    _, key, value = (y @ w[f"{name}.attn.in_proj_weight"].T + w[f"{name}.attn.in_proj_bias"]).chunk(3, -1)
    seen = []
    for h in range(3):
        own = slice(8 * h, 8 * h + 8)
        powers = torch.exp(key[..., own] @ key[..., own].transpose(1, 2) / math.sqrt(8))
        seen.append(powers / powers.sum(-1, keepdim=True) @ value[..., own])
    out = torch.cat(seen, -1) @ w[f"{name}.attn.out_proj.weight"].T + w[f"{name}.attn.out_proj.bias"]
    assert trunk.patches(tokens).numpy() == pytest.approx(out[:, 1:17].numpy(), abs=1e-5)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8))
    whole = torch.ones(1, 32, 32, dtype=torch.bool)
    same = clip.encode_pixels(((images.permute(0, 3, 1, 2) / 255) - clip.mean) / clip.std)
    assert clip.encode_regions(images, whole).numpy() == pytest.approx(same.numpy(), abs=1e-6)


def test_prompts_are_in_the_revision_and_without_them_nothing_is_new(folder, tmp_path):
    written(tmp_path / "p", visual=[(2, 24)])
    written(tmp_path / "q", visual=[(2, 24)], seed=6)
    plain = clip_revision(ClipWeights(model=f"local-dir:{folder}"))
    first, other = (clip_revision(config(folder, tmp_path / name)) for name in ("p", "q"))
    assert len({plain, first, other}) == 3
    assert first.startswith(f"{plain}+prompts:")
    (tmp_path / "r").write_bytes((tmp_path / "p").read_bytes())
    assert clip_revision(config(folder, tmp_path / "r")) == first
    assert ClipWeights().facts() == {}
    assert ClipConfig().facts() == {"template": "a photo of a {}"}
    assert "prompts" not in str(NaclipConfig().map_facts()) + str(CandidatesConfig(source="clip").facts())


def test_a_changed_file_is_read_again_in_one_process(folder, pixels, tmp_path):
    written(tmp_path / "p", visual=[(2, 24)])
    first = load_clip(config(folder, tmp_path / "p"), "cpu").encode_pixels(pixels)
    written(tmp_path / "p", visual=[(2, 24)], seed=6)
    assert (load_clip(config(folder, tmp_path / "p"), "cpu").encode_pixels(pixels) != first).any()


@pytest.mark.parametrize(
    ("shapes", "base", "message"),
    [
        ({"visual": [(2, 24)] * 4}, "base", "visual prompts for 4 layers, and CLIP .* has 3"),
        ({"text": [(2, 16)] * 3}, "base", "text prompts for 3 layers, and CLIP .* has 2"),
        ({"visual": [(2, 23)]}, "base", "visual prompts are 23 numbers wide, and CLIP .* is 24"),
        ({"text": [(2, 24)]}, "base", "text prompts are 24 numbers wide, and CLIP .* is 16"),
        ({"text": [(14, 16)]}, "base", "14 text prompts leave no place for a caption: CLIP .* has room for 13"),
        ({"visual": [(2, 24)]}, "ViT-L-14", "are for CLIP ViT-L-14, not for base"),
        ({"visual": [(2, 24)]}, None, "do not say which CLIP they are for: metadata 'base_model' is missing"),
        ({}, "base", "hold no tensor"),
        ({"visual": [(2, 24), (3, 24)]}, "base", "as many each layer; these: 2 x 24, 3 x 24"),
    ],
)
def test_prompts_that_do_not_fit_are_refused_before_anything_is_loaded(folder, tmp_path, shapes, base, message):
    written(tmp_path / "p", **shapes, base=base)
    with pytest.raises(UsageError, match=message):
        clip_revision(config(folder, tmp_path / "p"))


def test_files_that_are_no_prompts_are_refused(folder, tmp_path):
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(CheckpointError, match="are no safetensors file"):
        clip_revision(config(folder, tmp_path / "text"))
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        clip_revision(config(folder, tmp_path / "nothing"))
    for tensors, message in (
        ({"visual.VPT": torch.zeros(2, 24)}, "hold 'visual.VPT': tensors are named"),
        ({"visual.1": torch.zeros(2, 24)}, "have no visual.0 but deeper ones"),
        ({"visual.0": torch.full((2, 24), torch.nan)}, "no finite number"),
    ):
        save_file(tensors, tmp_path / "p", metadata={"base_model": "base"})
        with pytest.raises(CheckpointError, match=message):
            clip_revision(config(folder, tmp_path / "p"))


def test_towers_without_transformer_are_refused(tmp_path):
    written(tmp_path / "p", visual=[(2, 24)], base="tiny")
    with pytest.raises(UsageError, match="CLIP tiny has a ResNet, which takes no visual prompts"):
        clip_revision(ClipWeights(model="tiny", prompts=str(tmp_path / "p")))
    written(tmp_path / "q", text=[(2, 512)], base="roberta-ViT-B-32")
    clip = ClipWeights(model="roberta-ViT-B-32", pretrained="laion2b_s12b_b32k", prompts=str(tmp_path / "q"))
    with pytest.raises(UsageError, match="roberta-base for a text tower, which takes no text prompts"):
        clip_revision(clip)


def test_the_tag_is_compared_where_there_is_one(tmp_path):
    written(tmp_path / "p", visual=[(2, 768)], base="ViT-B-16:laion400m_e32")
    with pytest.raises(UsageError, match="are for CLIP ViT-B-16:laion400m_e32, not for ViT-B-16:openai"):
        clip_revision(ClipWeights(prompts=str(tmp_path / "p")))
    (tmp_path / "weights.pt").write_bytes(b"")
    own = ClipWeights(pretrained=str(tmp_path / "weights.pt"), prompts=str(tmp_path / "p"))
    assert clip_revision(own).startswith("ViT-B-16:")


def test_a_caption_that_does_not_fit_beside_the_prompts_is_named(folder, tmp_path):
    written(tmp_path / "p", text=[(12, 16)])
    clip = load_clip(config(folder, tmp_path / "p"), "cpu")
    clip.encode_texts(["car"])
    with pytest.raises(CaptionTooLongError, match="caption 'car car car' takes 5 of 16 places, and text prompts 12"):
        clip.encode_texts(["car", "car car car"])
