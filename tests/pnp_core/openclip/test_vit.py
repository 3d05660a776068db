"""The trunk and the last blocks against a forward pass written from the formulas, in float64 numpy, image by image."""

import math

import numpy as np
import open_clip
import pytest
import torch

from pnp_core.errors import UsageError
from pnp_core.openclip.last_block import ATTENTIONS, as_trained, neighbourhood, run_last_block
from pnp_core.openclip.positions import by_scale_factor, by_size_in_half
from pnp_core.openclip.vit import ClipVit, head_mean_attention
from tests.clips import random_clip

HEADS = 3


class ByHand:
    """A ViT of a CLIP in numpy."""

    def __init__(self, model):
        self.w = {name: value.double().numpy() for name, value in model.visual.state_dict().items()}
        self.last = max(int(name.split(".")[2]) for name in self.w if "resblocks" in name)

    def norm(self, x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def heads(self, y, block):
        mixed = y @ self.w[f"{block}.attn.in_proj_weight"].T + self.w[f"{block}.attn.in_proj_bias"]
        return [np.split(part, HEADS, axis=1) for part in np.split(mixed, 3, axis=1)]

    def out(self, joined, block):
        return joined @ self.w[f"{block}.attn.out_proj.weight"].T + self.w[f"{block}.attn.out_proj.bias"]

    def mlp(self, x, block):
        y = self.norm(x, f"{block}.ln_2") @ self.w[f"{block}.mlp.c_fc.weight"].T + self.w[f"{block}.mlp.c_fc.bias"]
        y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
        return y @ self.w[f"{block}.mlp.c_proj.weight"].T + self.w[f"{block}.mlp.c_proj.bias"]

    def embed(self, image, positions):
        kernel = self.w["conv1.weight"]
        side = kernel.shape[2]
        rows, columns = image.shape[1] // side, image.shape[2] // side
        patches = [
            np.tensordot(kernel, image[:, r * side : (r + 1) * side, c * side : (c + 1) * side], 3)
            for r in range(rows)
            for c in range(columns)
        ]
        return np.stack([self.w["class_embedding"], *patches]) + positions

    def block(self, x, number):
        name = f"transformer.resblocks.{number}"
        q, k, v = self.heads(self.norm(x, f"{name}.ln_1"), name)
        weights = [softmax(a @ b.T / math.sqrt(a.shape[1])) for a, b in zip(q, k, strict=True)]
        x = x + self.out(np.concatenate([w @ c for w, c in zip(weights, v, strict=True)], axis=1), name)
        return x + self.mlp(x, name), sum(weights) / HEADS


def softmax(x):
    raised = np.exp(x - x.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def model():
    return random_clip()


@pytest.fixture(scope="module")
def vit(model):
    return ClipVit(model.visual, "random")


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def by_hand(model, pixels):
    """Inputs of the last block of each image, and the attention of the blocks before."""
    hand = ByHand(model)
    found = []
    for image in pixels.double().numpy():
        x = hand.norm(hand.embed(image, hand.w["positional_embedding"]), "ln_pre")
        attentions = []
        for number in range(hand.last):
            x, attention = hand.block(x, number)
            attentions.append(attention)
        found.append((x, attentions))
    return hand, found


def test_the_trunk_is_every_block_but_the_last(vit, pixels, by_hand):
    trunk = vit.trunk(pixels, attentions=True)
    assert trunk.grid == (4, 4)
    for i, (expected, attentions) in enumerate(by_hand[1]):
        np.testing.assert_allclose(trunk.tokens[i].numpy(), expected, atol=1e-5)
        for kept, attention in zip(trunk.attentions, attentions, strict=True):
            np.testing.assert_allclose(kept[i].numpy(), attention, atol=1e-5)
    assert vit.trunk(pixels).attentions == ()


def expected_weights(name, q, k, sigma):
    scale = 1 / math.sqrt(q[0].shape[1])
    tokens = len(q[0])
    near = np.zeros((tokens, tokens))
    for i in range(16):
        for j in range(16):
            apart = (i // 4 - j // 4) ** 2 + (i % 4 - j % 4) ** 2
            near[i + 1, j + 1] = math.exp(-apart / (2 * sigma**2))
    lengths = [
        np.linalg.norm(a[i]) * np.linalg.norm(b[j])
        for a, b in zip(q, k, strict=True)
        for i in range(tokens)
        for j in range(tokens)
    ]
    made = {
        "naclip": lambda a, b: softmax(b @ b.T * scale + near),
        "kk": lambda a, b: softmax(b @ b.T * scale),
        "nonly": lambda a, b: softmax(near * scale * np.mean(lengths)),
        "csa": lambda a, b: softmax(a @ a.T * scale) + softmax(b @ b.T * scale),
        "qq": lambda a, b: softmax(a @ a.T * scale),
        "vanilla": lambda a, b: softmax(a @ b.T * scale),
    }[name]
    return [made(a, b) for a, b in zip(q, k, strict=True)]


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_a_last_block_is_what_its_formula_says(name, residual, vit, pixels, by_hand):
    hand, inputs = by_hand
    block = f"transformer.resblocks.{hand.last}"
    trunk = vit.trunk(pixels)
    made = run_last_block(vit.last, trunk, name, residual, sigma=1.5)
    seen = vit.project(trunk.patches(made))
    for i, (x, _) in enumerate(inputs):
        q, k, v = hand.heads(hand.norm(x, f"{block}.ln_1"), block)
        weights = expected_weights(name, q, k, 1.5)
        expected = hand.out(np.concatenate([w @ c for w, c in zip(weights, v, strict=True)], axis=1), block)
        if residual:
            expected = x + expected
            expected = expected + hand.mlp(expected, block)
        np.testing.assert_allclose(made[i].numpy(), expected, atol=1e-5)
        projected = hand.norm(expected, "ln_post")[1:] @ hand.w["proj"]
        np.testing.assert_allclose(seen[i].numpy(), projected, atol=2e-5)


def test_the_block_as_trained_gives_the_picture_what_open_clip_gives_it(model, vit, pixels):
    trunk = vit.trunk(pixels)
    wanted = model.visual(pixels)
    normed = vit.last.ln_1(trunk.tokens)
    for tokens in (as_trained(vit.last, trunk.tokens, normed), run_last_block(vit.last, trunk, "vanilla", True)):
        torch.testing.assert_close(vit.project(tokens)[:, 0], wanted, atol=1e-5, rtol=1e-5)
    rows = head_mean_attention(vit.last, normed).sum(-1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


def test_a_gradient_reaches_the_normed_tokens_of_the_last_block(vit, pixels):
    trunk = vit.trunk(pixels)
    normed = vit.last.ln_1(trunk.tokens).requires_grad_()
    vit.project(as_trained(vit.last, trunk.tokens, normed)).sum().backward()
    assert normed.grad is not None
    assert normed.grad.abs().max() > 0


def test_the_neighbourhood_of_a_patch_is_as_written(vit):
    near = neighbourhood((2, 3), 2.0, extra=1)
    assert near.shape == (8, 8)
    assert near[0].abs().sum() == near[:, 7].abs().sum() == near[7].abs().sum() == 0
    assert float(near[1, 6]) == pytest.approx(math.exp(-(1 + 4) / 8)), "a row and two columns apart"


def cubic(t):
    """Keys' kernel with a = -0.75, which torch takes."""
    t, a = abs(t), -0.75
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def bicubic(row, size, factor):
    out = []
    for i in range(size):
        place = (i + 0.5) / factor - 0.5
        first = math.floor(place)
        near = [(min(max(n, 0), len(row) - 1), cubic(place - n)) for n in range(first - 1, first + 3)]
        out.append(sum(row[n] * weight for n, weight in near))
    return np.array(out)


def test_positions_by_factor_lie_a_tenth_of_a_patch_off():
    table = torch.randn(17, 5, generator=torch.Generator().manual_seed(2))
    made = by_scale_factor(table, (4, 4), (3, 6))
    grid = table[1:].reshape(4, 4, 5).double().numpy()
    rows = np.stack([[bicubic(grid[:, c, d], 3, 3.1 / 4) for d in range(5)] for c in range(4)])  # (4, 5, 3)
    both = np.stack([[bicubic(rows[:, d, r], 6, 6.1 / 4) for d in range(5)] for r in range(3)])  # (3, 5, 6)
    np.testing.assert_allclose(made[1:].numpy(), both.transpose(0, 2, 1).reshape(18, 5), atol=1e-5)
    assert torch.equal(made[0], table[0])
    assert by_scale_factor(table, (4, 4), (2, 8)) is table, "as many patches: as it is"


def test_positions_by_size_are_rounded_to_half_everywhere():
    table = torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
    same = by_size_in_half(table, (2, 2), (2, 2))
    assert torch.equal(same, table.half().float())
    wider = by_size_in_half(table, (2, 2), (2, 4))
    low, high = table[1], table[2]
    row = torch.stack([low, 0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high, high]).half().float()
    assert torch.equal(wider[1:5], row)


def test_another_grid_keeps_what_open_clip_would_do_with_such_a_table(vit, pixels):
    larger = torch.nn.functional.pad(pixels, (0, 19, 0, 8))
    trunk = vit.trunk(larger)
    assert trunk.grid == (5, 6), "three columns of pixels are left over"
    assert trunk.patches(trunk.tokens).shape == (2, 30, 24)


def test_prompts_take_part_and_are_no_patches(model, pixels):
    prompts = [torch.randn(2, 24, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    vit = ClipVit(model.visual, "random", prompts=prompts)
    trunk = vit.trunk(pixels)
    assert trunk.tokens.shape == (2, 19, 24)
    assert trunk.extra == 2
    assert torch.equal(trunk.tokens[:, -2:], prompts[2].expand(2, -1, -1)), "the last block has prompts of its own"
    assert trunk.patches(run_last_block(vit.last, trunk, "naclip", False)).shape == (2, 16, 24)
    plain = ClipVit(model.visual, "random").trunk(pixels)
    assert not torch.allclose(trunk.patches(trunk.tokens), plain.patches(plain.tokens), atol=1e-3)
    hand = ByHand(model)
    x = hand.embed(pixels[0].double().numpy(), hand.w["positional_embedding"])
    x = hand.norm(np.concatenate([x, prompts[0].double().numpy()]), "ln_pre")
    x, _ = hand.block(x, 0)
    x, _ = hand.block(np.concatenate([x[:-2], prompts[1].double().numpy()]), 1)
    np.testing.assert_allclose(trunk.tokens[0, :-2].numpy(), x[:-2], atol=1e-5)


def test_half_precision_leaves_the_shared_tower_as_it_is(model, pixels):
    vit = ClipVit(model.visual, "random", dtype="bfloat16")
    trunk = vit.trunk(pixels)
    assert trunk.tokens.dtype == torch.bfloat16
    assert vit.project(run_last_block(vit.last, trunk, "naclip", False)).dtype == torch.float32
    assert model.visual.conv1.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [1, 1, 1, 1], "width": 8, "head_width": 16}, "CLIP x sees with a ModifiedResNet"),
        ({"qk_norm": True}, "CLIP x has blocks other than CLIP's own"),
        ({"pool_type": "avg"}, "CLIP x pools its patches otherwise"),
        ({"attentional_pool": True, "attn_pooler_heads": 2}, "CLIP x pools its patches otherwise"),
    ],
)
def test_a_tower_of_another_make_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        ClipVit(random_clip(**change).visual, "x")


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 24)] * 4, "visual prompts for 4 layers, and CLIP x has 3"),
        ([(2, 23)], "visual prompts for CLIP x are n x 24 numbers, as many each layer; these: 2 x 23"),
        ([(2, 24), (3, 24)], "these: 2 x 24, 3 x 24"),
    ],
)
def test_prompts_for_another_tower_are_refused(shapes, message, model):
    with pytest.raises(UsageError, match=message):
        ClipVit(model.visual, "x", prompts=[torch.zeros(shape) for shape in shapes])


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "convnext_base"])
def test_a_timm_tower_is_named_in_the_refusal(name):
    assert "timm_model_name" in open_clip.get_model_config(name)["vision_cfg"]
    with pytest.raises(UsageError, match="CLIP x sees with a TimmModel"):
        ClipVit(type("TimmModel", (), {})(), "x")
