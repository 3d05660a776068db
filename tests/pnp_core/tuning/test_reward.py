"""The CLIP reward, on a CLIP whose embeddings are known by construction."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.ndimage import gaussian_filter

from pnp_core.openclip.config import ClipConfig
from pnp_core.openclip.model import ClipModel, load_clip
from pnp_core.tuning import reward
from pnp_core.tuning.region_scorers import ClipOnlooker
from pnp_core.tuning.reward import (
    REWARDS,
    Judge,
    RegionSimilarity,
    authors_reward,
    contrast_reward,
    control_reward,
    regions,
    roll_half,
    rotate_180,
)

SIDE = 8


class ColourClip(torch.nn.Module):
    """A CLIP that knows two words: a picture's features are the amounts of red and green in it."""

    def __init__(self) -> None:
        super().__init__()
        # A temperature of ln 3 makes the certain class three times as probable as the other one.
        self.logit_scale = torch.nn.Parameter(torch.tensor(math.log(math.log(3))))
        self.visual = SimpleNamespace(image_size=SIDE, image_mean=(0.0, 0.0, 0.0), image_std=(1.0, 1.0, 1.0))

    def encode_image(self, pixels: torch.Tensor, normalize: bool) -> torch.Tensor:
        assert normalize
        return torch.nn.functional.normalize(pixels[:, :2].sum(dim=(2, 3)), dim=1)

    def encode_text(self, ids: torch.Tensor, normalize: bool) -> torch.Tensor:
        assert normalize
        return torch.eye(2)[ids]


def tokenize(texts: list[str]) -> torch.Tensor:
    return torch.tensor([["a red thing", "a green thing"].index(text) for text in texts])


@pytest.fixture
def judge() -> Judge:
    clip = ClipModel(ColourClip(), None, tokenize, torch.device("cpu"))
    return Judge(ClipOnlooker.create(clip, ["red", "green"], "a {} thing"), batch_size=3)


@pytest.fixture
def image() -> np.ndarray:
    """Left half red, right half green."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[:, : SIDE // 2, 0] = pixels[:, SIDE // 2 :, 1] = 255
    return pixels


def see(
    judge: Judge, image: np.ndarray, masks: list[np.ndarray], label: list[int], labels: tuple[int, ...]
) -> RegionSimilarity:
    found, first = np.stack(masks), np.zeros(len(masks), int)
    here, *elsewhere = (
        judge.similarity(image[None], ["p"], first, r) for r in (found, rotate_180(found), roll_half(found))
    )
    area = found.mean(axis=(1, 2))
    return RegionSimilarity(here, judge.blank(), np.array(label), (labels,) * len(found), area, tuple(elsewhere))


def columns(first: int, last: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:, first:last] = True
    return mask


def test_two_class_toy_by_hand(judge, image):
    # Red region for red; the whole picture for red; green region for red; a quarter of green for green.
    masks = [columns(0, 4), columns(0, 8), columns(4, 8), columns(4, 6)]
    sight = see(judge, image, masks, [0, 0, 0, 1], (0, 1))
    # cos = 1 and 0, times ln 3: odds of 3 to 1. The whole picture is half red, half green: even odds, as blank.
    expected = np.log(3) * np.array([[1, 0], [math.sqrt(0.5), math.sqrt(0.5)], [0, 1], [0, 1]])
    np.testing.assert_allclose(sight.similarity, expected, atol=1e-6)
    np.testing.assert_allclose(sight.blank, [0, 0], atol=1e-6)
    assert authors_reward(sight).tolist() == [1, 0, 0, 1]
    by_hand = [0.75 - 0.5 - 0.5, 0.5 - 0.5 - 1, 0.25 - 0.5 - 0.5, 0.75 - 0.5 - 0.25]
    np.testing.assert_allclose(contrast_reward(sight), by_hand, atol=1e-6)
    # Turned or moved by half, a region on one side comes to lie on the other one.
    np.testing.assert_allclose(control_reward(sight), [0.75 - 0.25, 0.5 - 0.5, 0.25 - 0.75, 0.75 - 0.25], atol=1e-6)


def test_regions_elsewhere_are_turned_and_moved_over_the_border():
    found = np.zeros((1, 4, 4), bool)
    found[0, 0, :3] = True
    assert np.argwhere(rotate_180(found)[0]).tolist() == [[3, 1], [3, 2], [3, 3]]
    assert np.argwhere(roll_half(found)[0]).tolist() == [[2, 0], [2, 2], [2, 3]]


def test_a_picture_with_one_label_never_scores_under_the_authors_softmax_but_does_under_contrast(judge, image):
    sight = see(judge, image, [columns(0, 1), columns(4, 5)], [0, 0], (0,))
    assert authors_reward(sight).tolist() == [0, 0]
    np.testing.assert_allclose(contrast_reward(sight), [0.75 - 0.5 - 1 / 8, 0.25 - 0.5 - 1 / 8], atol=1e-6)


@pytest.mark.parametrize("kind", list(REWARDS))
def test_empty_full_and_not_a_number_have_a_defined_reward(kind, judge, image):
    maps = np.stack([np.zeros((2, 2)), np.ones((2, 2)), np.array([[np.nan, 1], [0, 0]]), [[np.inf, 1], [0, 0]]])
    found = regions(maps.astype(np.float32), 0.5, 0.0, SIDE)
    assert not found.any(), "no salience to tell apart: nothing is salient"
    empty = REWARDS.get(kind).score(see(judge, image, list(found), [0] * 4, (0, 1)))
    assert empty.tolist() == [0.0] * 4
    full = REWARDS.get(kind).score(see(judge, image, [np.ones((SIDE, SIDE), bool)], [0], (0, 1)))
    assert np.isfinite(full).all()
    assert full[0] <= 0, "a region that leaves nothing out is worth no more than an empty one"


def test_reward_of_a_large_vocabulary_does_not_overflow():
    similarity = np.array([[1e4, -1e4, 0.0]])
    blank = np.array([-1e4, 1e4, 0.0])
    sight = RegionSimilarity(similarity, blank, np.array([0]), ((0, 1),), np.array([0.25]), (-similarity, similarity))
    assert authors_reward(sight).tolist() == [1.0]
    assert contrast_reward(sight).tolist() == [0.75]
    assert control_reward(sight).tolist() == [0.5]


def test_region_is_binarised_resized_blurred_and_binarised_again():
    maps = np.zeros((1, 3, 3), np.float32)
    maps[0, 1, 1], maps[0, 0, 0] = 2.0, 0.5
    binary = np.zeros((3, 3), np.float32)
    binary[1, 1] = 1  # 0.5 / 2 is below the threshold
    large = torch.nn.functional.interpolate(
        torch.from_numpy(binary)[None, None], (9, 9), mode="bilinear", align_corners=True
    )[0, 0].numpy()
    soft = gaussian_filter(large, 0.1 * 9, mode="reflect", truncate=4.0)
    assert np.array_equal(regions(maps, 0.3, 0.1, 9)[0], soft > 0.3)
    assert np.array_equal(regions(maps, 0.3, 0.0, 9)[0], large > 0.3)


@given(arrays.arrays(np.float32, (2, 3, 4), elements=st.floats(0, 1, width=32)), st.floats(0.01, 0.9))
def test_region_does_not_depend_on_the_scale_of_a_map(maps, threshold):
    # A power of two scales without rounding.
    assert np.array_equal(regions(maps, threshold, 0.05, 12), regions(maps * 2**-20, threshold, 0.05, 12))


def test_equal_regions_of_a_picture_are_looked_at_once(judge, image):
    masks = [columns(0, 4), columns(0, 4), columns(1, 4), columns(0, 4)]
    first = see(judge, image, masks, [0] * 4, (0, 1))
    # Two regions, the empty picture, and elsewhere: the half in one place (either way), the other in two.
    assert judge.seen == 2 + 1 + 1 + 2
    again = see(judge, image, masks[::-1], [0] * 4, (0, 1))
    assert judge.seen == 6
    np.testing.assert_array_equal(again.similarity, first.similarity[::-1])


def test_the_same_region_of_another_picture_is_another_region(judge, image):
    turned = image[:, ::-1]
    both = np.stack([image, turned])
    found = np.stack([columns(0, 4), columns(0, 4)])
    similarity = judge.similarity(both, ["a", "b"], np.array([0, 1]), found)
    np.testing.assert_allclose(similarity, np.log(3) * np.eye(2), atol=1e-6)


def test_memory_of_what_was_seen_is_bounded(judge, image, monkeypatch):
    monkeypatch.setattr(reward, "MEMO_BYTES", 5 * (4 * 2 + 200))
    masks = [columns(first, last) for first in range(4) for last in range(5, 8)]
    unlimited = see(judge, image, masks, [0] * 12, (0, 1)).similarity
    assert len(judge._memo) <= 5
    np.testing.assert_array_equal(see(judge, image, masks, [0] * 12, (0, 1)).similarity, unlimited)


def test_what_clip_says_of_a_region_does_not_depend_on_what_it_was_asked_before():
    clip = load_clip(ClipConfig(model="tiny"), "cpu")
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, clip.size, clip.size, 3), dtype=np.uint8)
    found = random.random((40, clip.size, clip.size)) < 0.5
    image_of = np.arange(40) % 3
    names, captions = ["a", "b", "c"], ["star", "car"]

    def judged(rows: np.ndarray, judge: Judge) -> np.ndarray:
        return judge.similarity(images, names, image_of[rows], found[rows])

    onlooker = ClipOnlooker.create(clip, captions, "a {}")
    fresh = judged(np.arange(40), Judge(onlooker, 16))
    used = Judge(onlooker, 16)
    for _ in range(3):
        judged(random.choice(40, 7, replace=False), used)
    np.testing.assert_array_equal(judged(np.arange(40), used), fresh)
