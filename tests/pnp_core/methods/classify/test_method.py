"""From two proposals with known embeddings to labels, by hand."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from pnp_core.data import ClassMaps
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.label_map import make_label_maps
from pnp_core.masks.refine import open_refiner
from pnp_core.methods.classify.config import ClassifyConfig
from pnp_core.methods.classify.method import METHOD, LoadedClassify
from pnp_core.methods.classify.pieces import Pieces, overlapping
from pnp_core.openclip.model import ClipModel

SIZE = (6, 8)
CONFIG = ClassifyConfig(proposals="x", min_area=0)


class TwoFeatures(ClipModel):
    """A CLIP that sees the angle of the mean red of a region, and texts at 0, 90 and 45 degrees."""

    def __init__(self):
        self.size, self.scale = 8, 4.0

    def encode_regions(self, images, regions):
        red = torch.stack([one[region][:, 0].float().mean() for one, region in zip(images, regions, strict=True)])
        return torch.stack([torch.cos(red / 100), torch.sin(red / 100)], dim=1)


TEXTS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [math.sqrt(0.5), math.sqrt(0.5)]])


@dataclass
class Fixed:
    """The same proposals of every picture."""

    pieces: Pieces

    def of(self, key, size, least):
        return self.pieces


def masks():
    """Rows 0 to 3 (red 20), and columns 5 to 7 (red 120 but for the overlap)."""
    upper, right = np.zeros(SIZE, dtype=bool), np.zeros(SIZE, dtype=bool)
    upper[:4], right[:, 5:] = True, True
    return upper, right


def looked(asked):
    upper, right = masks()
    image = np.zeros((*SIZE, 3), dtype=np.uint8)
    image[upper] = 20
    loaded = LoadedClassify(CONFIG, TwoFeatures(), TEXTS, Fixed(overlapping([upper, right], SIZE, 0)))
    image[:4, :5], image[4:, 5:], image[:4, 5:] = 20, 120, 70
    batch = loaded.encode([loaded.prepare_keyed("a", image)])
    seen = loaded.look(batch, {0: asked})[0]
    features = batch[0].features.numpy()
    assert seen.fits(asked)
    own = ClassMaps(seen.maps, asked, None, *SIZE)
    parts = tuple(ClassMaps(part.maps, asked, None, *SIZE, of=part.of) for part in seen.parts)
    return features, ClassMaps(seen.maps, asked, None, *SIZE, parts=parts), own


def probabilities(features, asked):
    powers = np.exp(4 * features @ TEXTS.numpy()[[label - 1 for label in asked]].T)
    return powers / powers.sum(1, keepdims=True)


def label(maps, threshold=0.0, background="always", size=SIZE):
    config = MaskConfig(threshold=threshold, background=background, blur=0, crf={"name": "off"})
    decide = lambda one, at: METHOD.decide(CONFIG, config, one, at)  # noqa: E731
    refine = open_refiner(config.crf, "cpu", 1)
    (made,) = make_label_maps([maps], [np.zeros((*size, 3), np.uint8)], decide, refine, 2048)
    return made


def test_a_proposal_s_class_goes_to_its_pixels_and_the_surer_one_wins_overlaps():
    asked = (1, 2)
    features, maps, _ = looked(asked)
    likely = probabilities(features, asked)
    upper, right = masks()
    made = label(maps)
    assert likely[0, 0] > likely[0, 1]
    assert likely[1, 1] > likely[1, 0]
    surer = 1 if likely[0, 0] > likely[1, 1] else 2
    expected = np.zeros(SIZE, int)
    expected[upper], expected[right], expected[upper & right] = 1, 2, surer
    assert (made.labels == expected).all()
    assert made.confidence[0, 0] == pytest.approx(likely[0, 0], abs=1e-5)
    assert made.confidence[5, 0] == pytest.approx(1)
    best = np.where(upper, likely[0, 0], 0), np.where(right, likely[1, 0], 0)
    assert made.salience[0] == pytest.approx(np.maximum(*best).mean(), abs=1e-5)


def test_below_the_threshold_a_proposal_is_background_where_one_is_wanted():
    asked = (1, 2, 3)
    features, maps, _ = looked(asked)
    likely = probabilities(features, asked)
    low, high = sorted(likely.max(axis=1))
    between = float(low + high) / 2
    weak, strong = (masks()[n] for n in np.argsort(likely.max(axis=1)))
    made = label(maps, between)
    assert (made.labels[weak & ~strong] == 0).all()
    assert (made.labels[strong] > 0).all()
    kept = label(maps, between, background="few")
    assert (kept.labels[weak] > 0).all()
    assert (kept.labels[~(weak | strong)] == 0).all()


def test_what_is_stored_is_small_and_shown_on_a_grid():
    _, maps, own = looked((1, 2))
    scores, runs = maps.parts
    assert scores.maps.shape == (1, 2, 1, 4)
    assert runs.maps.shape == (2, 1, 1, 4 * 2 + 2 * 2)
    assert own.maps.shape == (1, 2, *SIZE)
    assert scores.maps.dtype == runs.maps.dtype == np.float32


def test_a_picture_without_proposals_is_all_background():
    loaded = LoadedClassify(CONFIG, TwoFeatures(), TEXTS, Fixed(overlapping([], SIZE, 0)))
    seen = loaded.look(loaded.encode([loaded.prepare_keyed("a", np.zeros((*SIZE, 3), np.uint8))]), {0: (1, 2)})[0]
    parts = tuple(ClassMaps(part.maps, (1, 2), None, *SIZE, of=part.of) for part in seen.parts)
    assert (label(ClassMaps(seen.maps, (1, 2), None, *SIZE, parts=parts)).labels == 0).all()
