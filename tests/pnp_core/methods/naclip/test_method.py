"""NACLIP from picture to scores, against the steps written down one by one."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from pnp_core import EvalConfig, LabelConfig
from pnp_core.data import ClassMaps
from pnp_core.errors import ClassNameError, UsageError
from pnp_core.inputs.cards import load_card
from pnp_core.masks.config import MaskConfig
from pnp_core.methods import load_method, method_of
from pnp_core.methods.naclip.config import NaclipConfig
from pnp_core.openclip.config import ClipWeights
from pnp_core.openclip.last_block import run_last_block
from pnp_core.openclip.model import load_clip
from pnp_core.openclip.queries import names_asked
from tests.clips import save_random_clip

CAPTIONS = ("car", "mug", "key")
TEMPLATES = ("a picture of {}", "{}")
QUERIES = {"Mug": ["mug", "hot mug", "ice cream"]}
BACKGROUND = ("air", "light")
SIZE = (21, 40)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return ClipWeights(model=f"local-dir:{save_random_clip(tmp_path_factory.mktemp('clip'))}")


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def settings(weights, **changes):
    values = {"clip": weights, "templates": TEMPLATES, "queries": QUERIES, "background": BACKGROUND, "sigma": 2}
    return NaclipConfig(**{**values, "short_side": 32, **changes})


def seen_by(config, image, asked):
    loaded = load_method(config, method_of(config).pin(config), CAPTIONS, "cpu")
    return loaded.look(loaded.encode([loaded.prepare(image)]), {0: asked})[0]


def maps_of(seen, asked):
    return ClassMaps(seen.maps, asked, None, *SIZE, of=seen.of)


def texts_by_hand(weights, names):
    clip = load_clip(weights, "cpu")
    means = [clip.encode_texts([t.replace("{}", name) for t in TEMPLATES]).mean(0) for name in names]
    return F.normalize(torch.stack(means), dim=-1)


def cosines_by_hand(weights, config, pixels, names):
    """Of one window (h, w, 3) uint8."""
    clip = load_clip(weights, "cpu")
    vit = clip.vit("x")
    mean, std = (torch.tensor(v) for v in ((122.771, 116.746, 104.094), (68.501, 66.632, 70.323)))
    normalised = ((torch.from_numpy(pixels).float() - mean) / std).permute(2, 0, 1)[None]
    trunk = vit.trunk(normalised)
    tokens = run_last_block(vit.last, trunk, config.attention, config.architecture == "vanilla", config.sigma)
    patches = F.normalize(vit.project(tokens)[:, 1:], dim=-1)[0]
    rows, columns = pixels.shape[0] // 8, pixels.shape[1] // 8
    return (texts_by_hand(weights, names) @ patches.T).view(1, -1, rows, columns)


def bilinear(maps, size):
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


NAMES = (*BACKGROUND, "car", "mug", "hot mug", "ice cream")
OF = (0, 0, 1, 2, 2, 2)


@pytest.mark.parametrize("window", [None, {"side": 24, "stride": 16}])
def test_stored_cosines_become_those_of_the_released_steps(window, weights, image):
    config = settings(weights, window=window)
    seen = seen_by(config, image, (1, 2))
    assert seen.of == OF, "the key was not asked about"
    loaded = load_method(config, method_of(config).pin(config), CAPTIONS, "cpu")
    pixels = loaded.prepare(image).pixels
    assert pixels.shape == (32, 61, 3), "40 * 32 / 21 + 0.5 = 61.45"
    # Of 61 columns windows of 24 begin at 0, 16, 32 and, moved back inside, 37; of 32 rows at 0 and 8.
    places = [(0, 0, 32, 61)] if window is None else [(t, s, t + 24, s + 24) for t in (0, 8) for s in (0, 16, 32, 37)]
    total, times = torch.zeros(1, len(NAMES), 32, 61), torch.zeros(32, 61)
    for top, left, bottom, right in places:
        cut = pixels[top:bottom, left:right]
        cosines = cosines_by_hand(weights, config, cut, NAMES)
        total[:, :, top:bottom, left:right] += bilinear(cosines, cut.shape[:2])
        times[top:bottom, left:right] += 1
    wanted = bilinear(total / times, SIZE)[0].numpy()
    scores = method_of(config).decide(
        config, MaskConfig(background="always", threshold=0.3, blur=0), maps_of(seen, (1, 2)), SIZE
    )
    np.testing.assert_allclose(scores.channels, wanted, atol=1e-5)
    assert scores.seen_at == (32, 61)
    assert scores.labels == (0, 1, 2, 0)
    probabilities = np.exp(40 * wanted.astype(float))
    probabilities /= probabilities.sum(0)
    best = np.stack([probabilities[:2].max(0), probabilities[2], probabilities[3:].max(0), np.full(SIZE, 0.3)])
    np.testing.assert_allclose(np.exp(scores.finished(scores.channels)), best, atol=1e-4)
    strength = [seen.maps[0, 2].mean(), seen.maps[0, 3:].max(0).mean()]
    np.testing.assert_allclose(scores.strength, strength, atol=1e-6)


def test_where_no_background_is_wanted_neither_queries_nor_threshold_make_one(weights, image):
    config, asked = settings(weights), (1, 2, 3)
    maps = maps_of(seen_by(config, image, asked), asked)
    scores = method_of(config).decide(config, MaskConfig(background="never", threshold=0.3, blur=0), maps, SIZE)
    assert scores.labels == asked
    assert len(scores.channels) == 5
    few = method_of(config).decide(config, MaskConfig(background="few", threshold=0, blur=0), maps, SIZE)
    assert few.labels == asked


def test_pictures_of_several_sizes_are_seen_together_as_alone(weights, image):
    config = settings(weights, window={"side": 24, "stride": 16})
    loaded = load_method(config, method_of(config).pin(config), CAPTIONS, "cpu")
    pictures = [image, image[:, :20].copy(), image[::-1].copy(), np.full((3, 200, 3), 9, np.uint8)]
    together = loaded.look(loaded.encode([loaded.prepare(one) for one in pictures]), dict.fromkeys(range(4), (1, 3)))
    for n, one in enumerate(pictures):
        np.testing.assert_allclose(together[n].maps, seen_by(config, one, (1, 3)).maps, atol=1e-5)


def test_a_picture_that_nothing_is_asked_of_has_no_maps(weights, image):
    seen = seen_by(settings(weights), image, ())
    assert seen.maps.shape == (1, 0, 4, 7)
    assert seen.fits(())


def test_for_people_a_class_has_one_map_from_nothing_up(weights, image):
    maps = maps_of(seen_by(settings(weights), image, (1, 2)), (1, 2)).by_class()
    assert maps.maps.shape == (1, 2, 4, 7)
    assert maps.maps.min(axis=(0, 2, 3)).tolist() == [0, 0]
    assert maps.by_class() is maps


def of_card(name, **more):
    return EvalConfig(out="x", dataset=name, **{"method": "naclip", **more})


@pytest.mark.parametrize(
    ("name", "queries", "threshold", "window"),
    [
        ("voc20", 30, 0, None),
        ("voc21", 56, 0.1, None),
        ("coco-object", 113, 0.1, 224),
        ("context60", 60, 0.1, 224),
        ("context59", 59, 0, 224),
        ("coco-stuff", 171, 0, 224),
        ("ade20k", 150, 0, 224),
    ],
)
def test_each_card_has_as_many_queries_as_its_authors_ask(name, queries, threshold, window):
    config, card = of_card(name), load_card(name)
    asked = names_asked(config.method.queries, card.captions)
    assert len(asked) == len(card.classes)
    assert sum(map(len, asked)) + len(config.method.background) == queries
    assert config.masks.threshold == threshold
    assert config.masks.crf.name == "pamr"
    assert (config.method.window and config.method.window.side) == window
    assert not method_of(config.method).remarks(config.method, card.captions)
    assert EvalConfig.model_validate(config.model_dump(mode="json")) == config
    hash(config.method)


def test_the_authors_names_are_asked_for():
    config, card = of_card("voc21"), load_card("voc21")
    asked = dict(zip(card.names, names_asked(config.method.queries, card.captions), strict=True))
    assert asked["boat"] == ("ship",)
    assert asked["diningtable"] == ("table",)
    assert len(asked["person"]) == 7
    assert asked["aeroplane"] == ("aeroplane",)


def test_classes_of_ones_own_have_plain_defaults_and_a_remark():
    config = LabelConfig(out="x", source="y", classes=("cat", "unicorn"), method="naclip")
    assert config.method.queries == ()
    assert len(config.method.background) == 26
    (remark,) = method_of(config.method).remarks(config.method, config.classes)
    assert "nobody has chosen queries for these classes" in remark
    own = LabelConfig(out="x", source="y", classes=("cat",), method={"name": "naclip", "queries": {"cat": "tabby"}})
    assert names_asked(own.method.queries, own.classes) == [("tabby",)]
    assert not method_of(own.method).remarks(own.method, own.classes)


def test_queries_of_ones_own_are_laid_over_those_of_the_card():
    config = of_card("voc21", method={"name": "naclip", "queries": {"boat": ["boat", "yacht"]}}).method
    asked = dict(config.queries)
    assert asked["boat"] == ("boat", "yacht")
    assert asked["dining table"] == ("table",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attention": "naclop"}, "Input should be 'naclip'"),
        ({"attention": "csa"}, "csa is defined with architecture vanilla alone"),
        ({"queries": {"car": []}}, "at least 1 item"),
        ({"queries": {"car": ["a"], "Car": ["b"]}}, "queries are given twice for car"),
        ({"templates": ["no place"]}, "should match pattern"),
        ({"window": {"side": 100, "stride": 101}}, "leave pixels out"),
        ({"window": {"side": 3000}}, "larger than the picture may be"),
        ({"sigma": 0}, "greater than 0"),
    ],
)
def test_settings_that_fit_nothing_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        NaclipConfig(**values)


def test_queries_for_what_is_no_class_are_refused(weights):
    with pytest.raises(ClassNameError, match="queries are given for 'mug', which is no class; classes: car, key"):
        names_asked(settings(weights).queries, ("car", "key"))


def test_windows_smaller_than_a_patch_are_refused(tmp_path, image):
    folder = save_random_clip(tmp_path / "coarse", image_size=64, patch_size=32)
    config = settings(ClipWeights(model=f"local-dir:{folder}"), window={"side": 24, "stride": 24})
    with pytest.raises(UsageError, match="has patches of 32 pixels; 24 hold none"):
        seen_by(config, image, (1,))


@pytest.mark.parametrize(
    ("model", "tower"), [("tiny", "a ResNet"), ("RN50", "a ResNet"), ("ViT-B-16-SigLIP", "a tower of timm")]
)
def test_a_clip_that_sees_otherwise_is_refused_before_it_is_loaded(model, tower):
    tag = {"RN50": "openai", "ViT-B-16-SigLIP": "webli"}.get(model)
    config = settings(ClipWeights(model=model, pretrained=tag))
    with pytest.raises(UsageError, match=f"CLIP {model} sees with {tower}; this method needs open_clip's own ViT"):
        method_of(config).pin(config)
