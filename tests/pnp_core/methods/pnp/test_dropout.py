import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pnp_core.methods.pnp.config import CaptionConfig, DropoutConfig
from pnp_core.methods.pnp.dropout import (
    STRATEGIES,
    drop_count,
    drop_fraction,
    drop_mass,
    hide_patches,
    salience_dropout,
)
from pnp_core.methods.pnp.prompts import build_prompts, stack_prompts

RANK = torch.tensor([[5.0, 1, 4, 2, 3, 0]])
NONE = torch.zeros(1, 6, dtype=torch.bool)


def dropped(flags: torch.Tensor) -> list[int]:
    return flags[0].nonzero()[:, 0].tolist()


def test_count_drops_the_most_salient_not_yet_dropped():
    first = drop_count(RANK, NONE, 2.0)
    assert dropped(first) == [0, 2]
    assert dropped(drop_count(RANK, first, 2.0)) == [0, 2, 3, 4]


def test_fraction_drops_half_of_what_is_left_each_time():
    first = drop_fraction(RANK, NONE, 0.5)
    assert dropped(first) == [0, 2, 4]
    # Three left: half of them, 1.5, rounds up to 2.
    assert dropped(drop_fraction(RANK, first, 0.5)) == [0, 1, 2, 3, 4]


def test_mass_drops_the_fewest_patches_that_hold_the_share():
    # Total 15: half is 7.5, held by 5 + 4.
    first = drop_mass(RANK, NONE, 0.5)
    assert dropped(first) == [0, 2]
    # Left 3 + 2 + 1: half is 3, held by the first alone.
    assert dropped(drop_mass(RANK, first, 0.5)) == [0, 2, 4]


def test_mass_drops_nothing_where_nothing_is_salient():
    assert dropped(drop_mass(torch.zeros(1, 6), NONE, 0.5)) == []


def test_ties_go_to_the_lower_index():
    assert dropped(drop_count(torch.ones(1, 6), NONE, 2.0)) == [0, 1]


def test_more_patches_than_there_are_drops_all():
    assert dropped(drop_count(RANK, NONE, 100.0)) == [0, 1, 2, 3, 4, 5]


@given(
    st.lists(st.floats(0, 1e3, width=32), min_size=2, max_size=40),
    st.sampled_from([("count", 3.0), ("fraction", 0.5), ("mass", 0.4)]),
    st.integers(1, 4),
)
def test_dropped_patches_only_grow_and_are_the_most_salient(values, strategy, rounds):
    name, amount = strategy
    rank = torch.tensor([values])
    flags = torch.zeros(1, len(values), dtype=torch.bool)
    for _ in range(rounds):
        grown = STRATEGIES[name](rank, flags, amount)
        assert bool((grown | ~flags).all())
        new, left = grown & ~flags, ~grown
        if new.any() and left.any():
            assert rank[new].min() >= rank[left].max()
        flags = grown


def test_hidden_patches_are_zero_and_the_others_untouched():
    pixels = torch.arange(1.0, 1 + 3 * 4 * 4).view(1, 3, 4, 4)
    seen = hide_patches(pixels, torch.tensor([[False, True, False, False]]), patch_size=2)
    assert seen[0, :, :2, 2:].abs().sum() == 0
    assert torch.equal(seen[0, :, 2:], pixels[0, :, 2:])
    assert torch.equal(seen[0, :, :2, :2], pixels[0, :, :2, :2])


def test_first_pass_sees_everything_and_dropped_patches_have_no_salience(backbone, pixels):
    prompts = stack_prompts([build_prompts(["car", "key"], CaptionConfig(), backbone)] * 2)
    found = salience_dropout(backbone, pixels, prompts, DropoutConfig(iterations=3, amount=4), 0, 0)
    assert found.dropped.sum(-1).tolist() == [[0, 4, 8], [0, 4, 8]]
    for k in range(3):
        hidden = found.dropped[:, k, None].expand(-1, 2, -1)
        assert found.maps[:, k][hidden].abs().sum() == 0
    assert found.maps.shape == (2, 3, 2, 36)


def test_image_encoder_runs_once_per_iteration(backbone, pixels, monkeypatch):
    calls = []
    encode = type(backbone).encode_image
    monkeypatch.setattr(type(backbone), "encode_image", lambda self, x: calls.append(1) or encode(self, x))
    prompts = stack_prompts([build_prompts(["car", "key"], CaptionConfig(mode="per_class"), backbone)] * 2)
    salience_dropout(backbone, pixels, prompts, DropoutConfig(iterations=4, amount=1), 0, 0)
    assert len(calls) == 4


@pytest.mark.parametrize(("strategy", "amount"), [("count", 1.5), ("fraction", 1.0), ("mass", 2.0)])
def test_amount_that_does_not_fit_the_strategy_is_refused(strategy, amount):
    with pytest.raises(ValueError, match="dropout amount"):
        DropoutConfig(strategy=strategy, amount=amount)
