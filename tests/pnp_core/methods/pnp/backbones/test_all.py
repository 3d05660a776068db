"""What every backbone has to do, held against forwards that share no code with the project."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from pnp_core.methods.pnp.backbones import Backbone, backbone_names, load_backbone, locate_checkpoint
from pnp_core.methods.pnp.config import BackboneConfig, CaptionConfig
from pnp_core.methods.pnp.prompts import build_prompts, stack_prompts
from pnp_core.methods.pnp.salience import all_salience, salience
from tests.pnp_core.methods.pnp.backbones.small import PlainForward, save_small

NAMES = ["hot-air balloon", "car", "ice cream"]


@dataclass
class Small:
    """A small random model of one kind."""

    name: str
    folder: Path
    plain: PlainForward

    def load(self, **values) -> Backbone:
        config = BackboneConfig.model_validate(
            {"name": self.name, "checkpoint": str(self.folder), "image_size": 48, **values}
        )
        return load_backbone(config, locate_checkpoint(config), "cpu")

    def plain_maps(self, image: torch.Tensor, ids: torch.Tensor) -> list[torch.Tensor]:
        """P * relu(dTarget/dP) of every layer by a backward through everything: (heads, tokens, P)."""
        logits, kept = self.plain(image, ids)
        logits[1].backward()
        # What reaches the score by no way has no gradient.
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in kept]
        maps = [p.detach() * g.clamp(min=0) for p, g in zip(kept, gradients, strict=True)]
        return [m.reshape(-1, *m.shape[-2:])[..., 1:] for m in maps]


@pytest.fixture(scope="module", params=backbone_names())
def small(request, tmp_path_factory) -> Small:
    folder = tmp_path_factory.mktemp(request.param)
    return Small(request.param, *save_small(request.param, folder))


@pytest.fixture(scope="module")
def model(small) -> Backbone:
    return small.load()


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def prompts_of(model: Backbone, names: list[str], mode: str = "joint"):
    return build_prompts(names, CaptionConfig.model_validate({"mode": mode}), model)


def test_checkpoint_is_known_to_have_the_layers_and_heads_of_the_model(small, model):
    found = locate_checkpoint(BackboneConfig(name=small.name, checkpoint=str(small.folder)))
    assert (found.layers, found.heads) == (model.layers, model.heads)


def test_scores_alone_are_those_of_the_pass_with_a_graph(model, pixels):
    many = prompts_of(model, [*NAMES, "of", "picture", "air", "a", "cream", "hot", "ice", "balloon"], "per_class")
    batch = stack_prompts([many] * 2)
    tokens = model.encode_image(pixels)
    alone, graph = (model.match(tokens, batch.ids, batch.mask, layers) for layers in ([], [0]))
    assert alone.itm.shape == (2, 11)
    torch.testing.assert_close(alone.itm, graph.itm)
    torch.testing.assert_close(alone.logits, graph.logits.detach())


def test_match_score_is_that_of_the_original(small, model, pixels):
    prompts = prompts_of(model, NAMES)
    batch = stack_prompts([prompts] * 2)
    match = model.match(model.encode_image(pixels), batch.ids, batch.mask, [0])
    for b in range(2):
        logits, _ = small.plain(pixels[b], prompts.ids[0])
        torch.testing.assert_close(match.logits[b, 0], logits[1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(match.itm[b, 0], logits.softmax(-1)[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["joint", "per_class"])
@pytest.mark.parametrize("layer", [0, -2])
def test_pruned_graph_equals_plain_full_backward(small, model, pixels, layer, mode):
    layer = layer % model.layers
    prompts = prompts_of(model, NAMES, mode)
    batch = stack_prompts([prompts] * 2)
    found, _ = all_salience(model, model.encode_image(pixels), batch, [layer])
    for b in range(2):
        expected = []
        for c, n in enumerate(prompts.caption_of_class.tolist()):
            length = int(prompts.mask[n].sum())
            maps = small.plain_maps(pixels[b], prompts.ids[n, :length])[layer]
            expected.append(maps[:, prompts.class_tokens[c, n, :length]].mean(1))
        assert relative_error(found[b, 0], torch.stack(expected, 1)) <= 1e-5


def test_all_layers_of_one_pass_equal_plain_full_backward(small, model, pixels):
    prompts = prompts_of(model, ["car"])
    found, _ = all_salience(model, model.encode_image(pixels[:1]), stack_prompts([prompts]), range(model.layers))
    expected = small.plain_maps(pixels[0], prompts.ids[0])
    for layer in range(model.layers - 1):
        own = expected[layer][:, prompts.class_tokens[0, 0]].mean(1)
        assert relative_error(found[0, layer, :, 0], own) <= 1e-5
    assert float(found[0, -1].abs().max()) == 0.0


@pytest.mark.parametrize("wanted", [[0], [1], [0, 1]])
def test_gradients_reach_exactly_the_wanted_layers(model, pixels, wanted):
    batch = stack_prompts([prompts_of(model, NAMES)] * 2)
    match = model.match(model.encode_image(pixels), batch.ids, batch.mask, wanted)
    assert len(match.probabilities) == len(wanted)
    assert match.probabilities[0].is_leaf
    assert match.probabilities[0].requires_grad
    assert [p.is_leaf for p in match.probabilities[1:]] == [False] * (len(wanted) - 1)
    gradients = torch.autograd.grad(match.logits.sum(), match.probabilities)
    assert all(float(g.abs().max()) > 0 for g in gradients[: model.layers - 1])
    weights = list(_weights(model))
    assert len(weights) > 50
    assert not any(w.requires_grad for w in weights)


def _weights(part) -> Iterator[torch.nn.Parameter]:
    """Of all modules that an object and its parts hold."""
    for inner in vars(part).values():
        if isinstance(inner, torch.nn.Module):
            yield from inner.parameters()
        elif hasattr(inner, "patch_size"):
            yield from _weights(inner)


def test_scores_alone_record_nothing(model, pixels):
    batch = stack_prompts([prompts_of(model, NAMES)] * 2)
    match = model.match(model.encode_image(pixels), batch.ids, batch.mask, [])
    assert not match.probabilities
    assert not match.logits.requires_grad


def test_padding_and_batch_composition_change_no_map(model, pixels):
    few, many = prompts_of(model, ["car"], "per_class"), prompts_of(model, NAMES, "per_class")
    tokens = model.encode_image(pixels)
    together = salience(model, tokens, stack_prompts([few, many]), 0, 0)
    alone = salience(model, model.encode_image(pixels[:1]), stack_prompts([few]), 0, 0)
    assert relative_error(together.maps[:1, :1], alone.maps) <= 1e-5
    assert float((together.maps[:1, :1] - alone.maps).abs().max()) <= 1e-6
    assert float(together.maps[0, 1:].abs().max()) == 0.0


@pytest.mark.parametrize("sides", [(64, 64), (64, 32), (32, 48)])
def test_other_sizes_and_shapes_interpolate_positions_as_the_original(small, sides):
    model = small.load(image_size=sides)
    assert model.grid == (sides[0] // model.patch_size, sides[1] // model.patch_size)
    image = torch.randn(3, *sides, generator=torch.Generator().manual_seed(1))
    prompts = prompts_of(model, NAMES)
    match = model.match(model.encode_image(image[None]), prompts.ids[None], prompts.mask[None], [0])
    assert match.probabilities[0].shape[-1] == 1 + model.grid[0] * model.grid[1]
    logits, kept = small.plain(image, prompts.ids[0])
    torch.testing.assert_close(match.logits[0, 0], logits[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(match.probabilities[0][0], kept[0].reshape(match.probabilities[0][0].shape))


@pytest.mark.parametrize("sides", [(48, 48), (64, 32)])
def test_bfloat16_image_encoder_stays_close(small, sides):
    half, full = small.load(dtype="bfloat16", image_size=sides), small.load(image_size=sides)
    pixels = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0))
    tokens = half.encode_image(pixels)
    assert tokens.dtype == torch.float32
    assert 0 < relative_error(tokens, full.encode_image(pixels)) <= 5e-2
    batch = stack_prompts([prompts_of(full, NAMES)] * 2)
    scores = [m.match(m.encode_image(pixels), batch.ids, batch.mask, []).itm for m in (half, full)]
    torch.testing.assert_close(scores[0], scores[1], rtol=5e-2, atol=5e-2)


def test_class_tokens_are_those_that_spell_the_name(model):
    text = "A picture of hot-air balloon car ice cream"
    encoded = model.tokenize(text)
    prompts = prompts_of(model, NAMES)
    for c, name in enumerate(NAMES):
        own = [encoded.offsets[i] for i in prompts.class_tokens[c, 0].nonzero().flatten().tolist()]
        assert text[own[0][0] : own[-1][1]].strip() == name
    assert not prompts.class_tokens[:, 0].sum(0).gt(1).any()
