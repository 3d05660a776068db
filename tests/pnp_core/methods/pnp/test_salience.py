import pytest
import torch

from pnp_core.errors import LayerRangeError
from pnp_core.methods.pnp.backbones import Match
from pnp_core.methods.pnp.layers import check_layer_head
from pnp_core.methods.pnp.prompts import PromptBatch
from pnp_core.methods.pnp.salience import class_salience, salience, token_salience


def prompts(class_tokens: list, caption_of_class: list, captions: list) -> PromptBatch:
    tokens = torch.tensor(class_tokens, dtype=torch.bool)
    return PromptBatch(
        ids=torch.zeros(tokens.shape[0], *tokens.shape[2:], dtype=torch.long),
        mask=torch.ones(tokens.shape[0], *tokens.shape[2:], dtype=torch.bool),
        class_tokens=tokens,
        caption_of_class=torch.tensor(caption_of_class),
        captions=torch.tensor(captions),
        classes=(tokens.shape[1],) * tokens.shape[0],
    )


# One picture, one caption of 3 tokens: token 0 is [ENC], class a owns token 1, class b token 2.
SIMPLE = prompts([[[[0, 1, 0]], [[0, 0, 1]]]], [[0, 0]], [[True]])


def test_salience_is_probability_times_positive_part_of_gradient():
    # Columns: image CLS, patch 0, patch 1.
    p = torch.tensor([[[[0.2, 0.3, 0.5], [0.1, 0.6, 0.3], [0.4, 0.4, 0.2]]]], requires_grad=True)
    weight = torch.tensor([[[[9.0, 9, 9], [5, 2, -3], [1, -1, 4]]]])
    match = Match([p], (p * weight).sum().view(1, 1), torch.zeros(1, 1))
    (found,) = token_salience(match, SIMPLE, "gradcam")
    expected = torch.tensor([[[[2.7, 4.5], [1.2, 0.0], [0.0, 0.8]]]])
    torch.testing.assert_close(found, expected)


def test_raw_attention_leaves_the_gradient_out():
    p = torch.tensor([[[[0.2, 0.3, 0.5], [0.1, 0.6, 0.3], [0.4, 0.4, 0.2]]]])
    (found,) = token_salience(Match([p], torch.zeros(1, 1), torch.zeros(1, 1)), SIMPLE, "attention")
    torch.testing.assert_close(found, p[..., 1:])


def test_padded_captions_do_not_count_in_the_target():
    p = torch.full((1, 1, 2, 3), 1.0, requires_grad=True)
    logits = torch.stack([p[0, 0, 0].sum(), 100 * p[0, 0, 1].sum()]).view(1, 2)
    batch = prompts([[[[1], [0]]]], [[0]], [[True, False]])
    (found,) = token_salience(Match([p], logits, torch.zeros(1, 2)), batch, "gradcam")
    assert found[0, 0].tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_class_map_is_the_mean_over_its_tokens_and_rank_the_sum_over_all():
    tokens = torch.tensor([[[9.0, 9, 9], [1, 2, 3], [3, 4, 5], [10, 20, 30]]])
    # Class a owns tokens 1 and 2, class b token 3; token 0 belongs to nobody.
    batch = prompts([[[[0, 1, 1, 0]], [[0, 0, 0, 1]]]], [[0, 0]], [[True]])
    found = class_salience(tokens, torch.tensor([[0.7]]), batch)
    assert found.maps[0].tolist() == [[2.0, 3.0, 4.0], [10.0, 20.0, 30.0]]
    assert found.rank[0].tolist() == [14.0, 26.0, 38.0]
    assert found.itm[0].tolist() == pytest.approx([0.7, 0.7])


def test_each_class_gets_the_match_score_of_its_own_caption():
    batch = prompts([[[[1], [0]], [[0], [1]]]], [[0, 1]], [[True, True]])
    found = class_salience(torch.ones(1, 2, 4), torch.tensor([[0.2, 0.9]]), batch)
    assert found.itm[0].tolist() == pytest.approx([0.2, 0.9])


@pytest.mark.parametrize(
    ("layer", "head", "message"),
    [
        (3, 0, "layer 3 is out of range: the model has layers 0 to 2"),
        (-1, 0, "layer -1 is out of range"),
        (0, 2, "head 2 is out of range: the model has heads 0 to 1"),
    ],
)
def test_layer_or_head_out_of_range_is_refused(layer, head, message):
    with pytest.raises(LayerRangeError, match=message):
        check_layer_head(layer, head, layers=3, heads=2)


def test_salience_of_a_missing_layer_is_refused(backbone, pixels):
    with pytest.raises(LayerRangeError):
        salience(backbone, backbone.encode_image(pixels), SIMPLE, 99, 0)
