"""The backbone as a judge of regions; CLIP as one is in test_reward."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pnp_core
from pnp_core.methods.pnp.backbones import load_backbone, locate_checkpoint
from pnp_core.methods.pnp.config import BackboneConfig, CaptionConfig
from pnp_core.methods.pnp.loaded import model_pixels
from pnp_core.methods.pnp.prompts import build_prompts
from pnp_core.tuning.region_scorers import MatchOnlooker

PHOTOGRAPHS = Path(pnp_core.__file__).parent / "_photographs"

NAMES = ["cat", "truck"]
SIDE = 192


@pytest.fixture(scope="module")
def backbone():
    config = BackboneConfig(name="photo", checkpoint="photo", image_size=SIDE)
    return load_backbone(config, locate_checkpoint(config), "cpu")


@pytest.fixture(scope="module")
def cat() -> np.ndarray:
    image = Image.open(PHOTOGRAPHS / "cat.jpg").convert("RGB")
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def test_whole_picture_scores_the_log_odds_of_its_match(backbone, cat):
    prompts = build_prompts(NAMES, CaptionConfig(mode="per_class"), backbone)
    tokens = backbone.encode_image(model_pixels(cat, (SIDE, SIDE))[None])
    odds = torch.logit(backbone.match(tokens, prompts.ids[None], prompts.mask[None], layers=()).itm)
    onlooker = MatchOnlooker(backbone, NAMES, CaptionConfig(mode="joint"))
    seen = onlooker.look(torch.from_numpy(cat[None]), torch.ones(1, SIDE, SIDE, dtype=torch.bool))
    torch.testing.assert_close(seen, odds, atol=1e-4, rtol=1e-4)
    assert onlooker.size == SIDE
    assert onlooker.classes == 2


def test_what_lies_beyond_the_region_is_not_seen(backbone, cat):
    onlooker = MatchOnlooker(backbone, NAMES, CaptionConfig())
    region = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    region[:, :, : SIDE // 2] = True
    other = cat.copy()
    other[:, SIDE // 2 :] = 7
    one, two = onlooker.look(torch.from_numpy(np.stack([cat, other])), region)
    assert torch.equal(one, two)


def test_a_cat_speaks_for_the_cat(backbone, cat):
    onlooker = MatchOnlooker(backbone, NAMES, CaptionConfig())
    regions = torch.stack([torch.ones(SIDE, SIDE, dtype=torch.bool), torch.zeros(SIDE, SIDE, dtype=torch.bool)])
    seen = onlooker.look(torch.from_numpy(np.stack([cat, cat])), regions)
    assert seen[0, 0] > seen[0, 1]
    assert seen[0, 0] > seen[1, 0]
