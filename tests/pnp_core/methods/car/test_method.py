"""CaR from picture to scores with random weights, against the steps written down one by one."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch.nn import functional as F

from pnp_core import EvalConfig, LabelConfig
from pnp_core.data import ClassMaps
from pnp_core.errors import CheckpointError, ClassNameError, UsageError
from pnp_core.inputs.cards import load_card
from pnp_core.masks.config import CrfConfig, MaskConfig
from pnp_core.masks.label_map import make_label_maps
from pnp_core.masks.refine import open_refiner, wrapped
from pnp_core.methods import load_method, method_of
from pnp_core.methods.car.config import BACKGROUND, TEMPLATES, CarConfig
from pnp_core.methods.car.method import METHOD, centre, laid_over, names_asked, passes_of
from pnp_core.methods.car.proposals import gradcams, refined, see
from pnp_core.openclip.config import ClipWeights
from pnp_core.openclip.model import load_clip
from pnp_core.openclip.positions import by_size_in_half
from pnp_core.openclip.vit import ClipVit
from tests.clips import save_random_clip

CAPTIONS = ("car", "mug", "key", "tree", "fish")
TEMPLATES_HERE = ("a picture of {}", "a photo of a {}")
SIZE = (21, 40)


@pytest.fixture(scope="module")
def proposer(tmp_path_factory):
    return ClipWeights(model=f"local-dir:{save_random_clip(tmp_path_factory.mktemp('clip'), layers=4)}")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = save_random_clip(tmp_path_factory.mktemp("clip"), seed=1, image_size=24, patch_size=6)
    return ClipWeights(model=f"local-dir:{folder}")


@pytest.fixture(scope="module")
def settings(proposer, classifier):
    usual = {"proposer": proposer, "classifier": classifier, "templates": TEMPLATES_HERE, "background": ("air", "sky")}
    usual |= {"proposal_template": "a picture of {}", "names": {"Mug": "hot mug"}, "confidence_threshold": 0.25}
    return lambda **changes: CarConfig(**{**usual, **changes})


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def loaded_of(config, captions=CAPTIONS):
    return load_method(config, METHOD.pin(config), captions, "cpu")


def seen_by(config, image, asked):
    loaded = loaded_of(config)
    return loaded.look(loaded.encode([loaded.prepare(image)]), {0: asked})[0]


def maps_of(seen, asked, size=SIZE):
    return ClassMaps(seen.maps, asked, seen.match, *size)


def by_hand(config, image, names, background, prompts):
    """The released steps of one pass: which names are left, their last maps at the picture's size, their scores."""
    near, far = (load_clip(clip, "cpu") for clip in (config.proposer, config.classifier))
    vits = ClipVit(near._model.visual, "near"), ClipVit(far._model.visual, "far")
    height, width = image.shape[:2]
    grid = -(-height // 8), -(-width // 8)
    large = np.asarray(Image.fromarray(image).resize((grid[1] * 8, grid[0] * 8), Image.Resampling.BICUBIC))
    pixels = ((torch.from_numpy(large.copy()).permute(2, 0, 1) / 255 - near.mean) / near.std)[None]
    sight = see(vits[0], pixels)
    behind = near.encode_texts([config.proposal_template.replace("{}", name) for name in background])
    numbers, before = list(range(len(names))), 0
    while True:
        own = [names[n] for n in numbers]
        texts = near.encode_texts(own if before == 0 else [config.proposal_template.replace("{}", n) for n in own])
        cams = gradcams(vits[0], sight.trunk, texts, behind, near.scale)
        maps = refined(cams, sight.affinity, grid, config.box_threshold).numpy().reshape(-1, *grid)
        full = [cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in maps]
        pictures = []
        for one in full:
            made, inside = image.copy(), one > config.mask_threshold
            if one.sum() > 1:
                if "blur" in prompts:
                    made = np.where(inside[..., None], made, cv2.GaussianBlur(made, (15, 15), 0))
                if "gray" in prompts:
                    made = np.where(inside[..., None], made, cv2.cvtColor(made, cv2.COLOR_BGR2GRAY)[..., None])
            pictures.append(centre_by_hand(made, 24))
        stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
        tokens = vits[1].trunk((stacked / 255 - far.mean) / far.std, by_size_in_half).tokens
        features = F.normalize(vits[1].project(tokens)[:, 0], dim=-1)
        total = sum(
            (far.scale * features @ far.encode_texts([t.replace("{}", n) for n in own]).T).softmax(-1)
            for t in config.templates
        )
        scores = total.softmax(-1).diagonal().numpy()
        kept = [i for i, score in enumerate(scores) if score > config.confidence_threshold] or [int(scores.argmax())]
        numbers = [numbers[i] for i in kept]
        if len(kept) == before:
            return numbers, np.stack(full), scores
        before = len(kept)


def centre_by_hand(image, side):
    """torchvision's Resize and CenterCrop."""
    height, width = image.shape[:2]
    short = min(height, width)
    size = (int(side * width / short), side) if height == short else (side, int(side * height / short))
    large = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    top, left = round((large.shape[0] - side) / 2), round((large.shape[1] - side) / 2)
    return large[top : top + side, left : left + side]


@pytest.mark.parametrize("prompts", [("blur", "gray"), ("gray",)])
@pytest.mark.parametrize("theta", [0.15, 0.22, 0.3])
def test_the_same_names_are_left_with_the_same_maps_and_scores_as_by_the_released_steps(
    prompts, theta, settings, image
):
    config = settings(prompts=prompts, confidence_threshold=theta)
    names = ["car", "hot mug", "key", "tree", "fish"]
    left, full, scores = by_hand(config, image, names, ("air", "sky"), prompts)
    asked = (1, 2, 3, 4, 5)
    seen = seen_by(config, image, asked)
    found = METHOD.decide(config, MaskConfig(background="always", threshold=0, blur=0), maps_of(seen, asked), SIZE)
    assert set(left) == {n for n in range(5) if seen.match[n] > theta} or len(left) == 1
    here = full.any((1, 2))  # a class that is left may have no map
    assert found.labels == (0, *(n + 1 for n, any_ in zip(left, here, strict=True) if any_))
    # Texts are embedded together with others, and what that changes in 32 bits is stretched by each map's minimum.
    np.testing.assert_allclose(np.exp(found.channels[1:]), np.clip(full[here], 1e-5, 1), atol=1e-4)
    np.testing.assert_allclose(np.exp(found.channels[0]), np.clip(1 - full.max(0), 1e-5, 1), atol=1e-4)
    np.testing.assert_allclose(seen.match[left], scores, atol=1e-5)
    assert not seen.maps[:, [n for n in range(5) if n not in left]].any()
    np.testing.assert_allclose(found.strength[left], seen.maps[0, left].mean((1, 2)), atol=1e-6)


def test_only_classes_that_are_asked_take_part(settings, image):
    config = settings(confidence_threshold=0.15)
    names = ["car", "tree"]
    left, _, scores = by_hand(config, image, names, ("air", "sky"), config.prompts)
    seen = seen_by(config, image, (1, 4))
    np.testing.assert_allclose(seen.match[left], scores, atol=1e-5)
    assert seen.maps.shape == (1, 2, 3, 5)
    assert seen.fits((1, 4))
    nothing = seen_by(config, image, ())
    assert nothing.maps.shape == (1, 0, 3, 5)
    assert nothing.fits(())


def test_stuff_is_looked_for_in_front_of_all_things_and_lies_below_them(settings, image):
    config = settings(stuff=("Tree", "fish"), stuff_prompts=("gray",), confidence_threshold=0.15)
    things, stuff = passes_of(config, CAPTIONS)
    assert (things.labels, things.background, things.prompts) == ((1, 2, 3), ("air", "sky"), ("blur", "gray"))
    assert (stuff.labels, stuff.background, stuff.prompts) == ((4, 5), ("car", "hot mug", "key"), ("gray",))
    seen = seen_by(config, image, (2, 4, 5))
    assert seen.maps.shape == (2, 3, 3, 5)
    assert not seen.maps[0, 1:].any()
    assert not seen.maps[1, 0].any()
    left, full, scores = by_hand(config, image, ["tree", "fish"], ("car", "hot mug", "key"), ("gray",))
    np.testing.assert_allclose(seen.match[[1 + n for n in left]], scores, atol=1e-5)
    large = F.interpolate(torch.from_numpy(seen.maps[1:, [1 + n for n in left]]), SIZE, mode="bilinear")[0]
    np.testing.assert_allclose(large, full, atol=1e-5)


def test_laying_over_has_the_winners_of_two_passes():
    random = np.random.default_rng(4)
    maps = random.random((2, 5, 9, 9)).astype(np.float32) ** 2
    maps[0, 3:], maps[1, :3] = 0, 0
    joint = laid_over(maps, True).argmax(0)
    things = np.concatenate([1 - maps[0].max(0)[None], maps[0, :3]]).argmax(0)
    stuff = np.concatenate([1 - maps[1].max(0)[None], maps[1, 3:]]).argmax(0)
    np.testing.assert_array_equal(joint, np.where(things > 0, things, np.where(stuff > 0, stuff + 3, 0)))
    alone = laid_over(maps[:1], True)
    np.testing.assert_allclose(alone[0], 1 - maps[0].max(0), atol=1e-6)
    np.testing.assert_allclose(alone[1:], maps[0], atol=1e-6)


def test_where_nothing_is_seen_all_is_background(settings):
    config = settings()
    maps = ClassMaps(np.zeros((1, 2, 3, 5), np.float32), (1, 2), None, *SIZE)
    for rule in ("always", "never"):
        masks = MaskConfig(background=rule, blur=0)
        scores = METHOD.decide(config, masks, maps, SIZE)
        assert scores.labels == (0,)
        refine = open_refiner(CrfConfig(guide="wrapped"), "cpu")
        made = make_label_maps(
            [maps], [np.zeros((*SIZE, 3), np.uint8)], lambda one, size, s=scores: s, refine, max_side=64
        )
        assert not made[0].labels.any()


def test_a_class_that_wins_no_pixel_is_no_crash(settings):
    maps = ClassMaps(np.full((1, 1, 3, 5), 0.1, np.float32), (2,), None, *SIZE)
    scores = METHOD.decide(settings(), MaskConfig(background="always", threshold=0, blur=0), maps, SIZE)
    assert not scores.channels.argmax(0).any()


def test_without_a_background_that_is_wanted_there_is_none(settings):
    maps = ClassMaps(np.full((2, 2, 3, 5), 0.1, np.float32), (2, 3), None, *SIZE)
    maps.maps[0, 1] = maps.maps[1, 0] = 0
    scores = METHOD.decide(settings(), MaskConfig(background="never", threshold=0, blur=0), maps, SIZE)
    assert scores.labels == (2, 3)
    assert (scores.channels.argmax(0) == 1).all(), "the thing leaves more than it takes, and the stuff has all of that"


def test_a_threshold_cuts_the_maps(settings):
    maps = ClassMaps(np.full((1, 1, 3, 5), 0.6, np.float32), (2,), None, *SIZE)
    scores = METHOD.decide(settings(), MaskConfig(background="always", threshold=0.7, blur=0), maps, SIZE)
    assert not scores.channels.argmax(0).any()


def test_each_picture_is_seen_once_by_the_proposer_and_each_name_once_a_round_by_the_classifier(
    settings, image, monkeypatch
):
    """Released: every round the picture again, and every name's picture once for each template."""
    config = settings(confidence_threshold=0.0)
    loaded = loaded_of(config)
    seen = dict.fromkeys(loaded._vits, 0)
    original = ClipVit.trunk

    def counting(self, pixels, *rest, **more):
        seen[self] += len(pixels)
        return original(self, pixels, *rest, **more)

    monkeypatch.setattr(ClipVit, "trunk", counting)
    loaded.look([loaded.prepare(image)], {0: (1, 2, 3, 4, 5)})
    assert [seen[vit] for vit in loaded._vits] == [1, 2 * 5], "two rounds of five names"


def test_a_large_picture_is_looked_at_smaller_so_that_memory_has_a_bound(settings):
    loaded = loaded_of(settings(max_side=64))
    prepared = loaded.prepare(np.zeros((300, 4000, 3), np.uint8))
    assert prepared.shape == (5, 64, 3)
    assert loaded.look([prepared], {0: (1, 2)})[0].maps.shape == (1, 2, 1, 8)
    small = np.zeros((64, 30, 3), np.uint8)
    assert loaded.prepare(small) is small


@pytest.mark.parametrize("size", [(21, 40), (40, 21), (30, 30), (9, 72), (7, 7)])
def test_the_middle_is_that_of_torchvision(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(centre(image, 24), centre_by_hand(image, 24))


def test_the_middle_of_a_very_thin_picture_takes_no_memory():
    image = np.zeros((1, 2_000_001, 3), np.uint8)
    image[:, 999_990:1_000_010] = 255
    assert centre(image, 25)[12, 12].tolist() == [255, 255, 255]


def test_all_blocks_of_the_classifier_can_be_taken(settings, image):
    config = settings(skip_last_block=False)
    loaded = loaded_of(config)
    clip = load_clip(config.classifier, "cpu")
    square = image[:21, :21]
    pixels = torch.from_numpy(centre(square, 24).copy()).permute(2, 0, 1).float() / 255
    expected = clip.encode_pixels(((pixels - clip.mean) / clip.std)[None])
    found = F.normalize(loaded._features([square]), dim=-1)
    assert F.cosine_similarity(found, expected) > 0.9999, "but for positions in float16"


def test_the_guide_of_its_crf_wraps_around(image):
    means = np.array([122.675, 116.669, 104.008])
    wanted = np.array([[[int(v) % 256 for v in pixel - means] for pixel in row] for row in image])
    np.testing.assert_array_equal(wrapped(image), wanted)
    scores = np.random.default_rng(0).random((2, *SIZE)).astype(np.float32)
    along = open_refiner(CrfConfig(), "cpu")([scores], [wrapped(image)])[0]
    np.testing.assert_array_equal(open_refiner(CrfConfig(guide="wrapped"), "cpu")([scores], [image])[0], along)


def of_card(name, **more):
    return EvalConfig(out="x", dataset=name, **{"method": "car", **more})


@pytest.mark.parametrize(
    ("name", "thresholds", "things", "stuff"),
    [
        ("voc21", (0.4, 0.6, 0.4), 20, 0),
        ("voc20", (0.4, 0.6, 0.4), 20, 0),
        ("coco-object", (0.5, 0.3, 0.5), 80, 0),
        ("context60", (0.6, 0.25, 0.4), 38, 21),
        ("context59", (0.6, 0.25, 0.4), 38, 21),
        ("ade20k", (0.6, 0.25, 0.7), 125, 25),
    ],
)
def test_each_card_has_its_authors_settings(name, thresholds, things, stuff):
    config, card = of_card(name), load_card(name)
    method = config.method
    assert (method.mask_threshold, method.confidence_threshold, method.box_threshold) == thresholds
    assert [len(one.labels) for one in passes_of(method, card.captions)] == [things, *([stuff] if stuff else [])]
    assert config.masks.background == "auto"  # as the card says
    crf = config.masks.crf
    assert (crf.gaussian_sxy, crf.gaussian_compat, crf.iterations, crf.guide) == (1, 3, 10, "wrapped")
    assert (crf.bilateral_sxy, crf.bilateral_srgb, crf.bilateral_compat) == (67, 3, 4)
    assert not METHOD.remarks(method, card.captions)
    assert EvalConfig.model_validate(config.model_dump(mode="json")) == config
    hash(method)


def test_the_authors_names_are_asked_for():
    names = {card: names_asked(of_card(card).method, load_card(card).captions) for card in ("voc21", "coco-object")}
    assert names["voc21"][14] == names["coco-object"][0] == "person with clothes,people,human"
    assert "sknowboard" in names["coco-object"]
    ade = names_asked(of_card("ade20k").method, load_card("ade20k").captions)
    assert ade[14] == "door, double, door"
    assert ade[0] == "wall"


def test_fifteen_templates_and_23_names_of_background_stand():
    assert (len(set(TEMPLATES)), len(set(BACKGROUND))) == (15, 23)
    assert "This is a photo of a large {}." in TEMPLATES


def test_classes_of_ones_own_have_plain_defaults_and_a_remark():
    config = LabelConfig(out="x", source="y", classes=("cat", "unicorn"), method="car")
    (remark,) = METHOD.remarks(config.method, config.classes)
    assert "nobody has chosen thresholds for these classes: car takes those for COCO" in remark
    own = config.method.model_copy(update={"box_threshold": 0.4})
    assert not METHOD.remarks(own, config.classes)
    tiny = config.method.model_copy(update={"proposer": ClipWeights(model="tiny-vit")})
    assert "knows only its 20 drawn classes, not cat, unicorn" in METHOD.remarks(tiny, config.classes)[1]


def test_it_says_what_it_is():
    found = of_card("voc21").method.describe()
    assert found.row == "CaR ViT-B-16:openai + ViT-L-14:openai, at most 1024 px"
    assert found.settings[:4] == ("eta 0.4", "theta 0.6", "lambda 0.4", "blur+circle")
    other = of_card("voc21", method={"name": "car", "classifier": {"model": "ViT-B-32"}}).method
    assert other.setting() != of_card("voc21").method.setting()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mask_threshold": 1}, "less than 1"),
        ({"confidence_threshold": -0.1}, "greater than or equal to 0"),
        ({"box_threshold": 1.5}, "less than 1"),
        ({"prompts": []}, "at least 1 item"),
        ({"prompts": ["blur", "blur"]}, "prompts blur given twice"),
        ({"prompts": ["blurred"]}, "Input should be 'blur', 'gray' or 'circle'"),
        ({"names": {"car": ""}}, "at least 1 character"),
        ({"names": {"car": "a", "Car": "b"}}, "names for car given twice"),
        ({"stuff": ["sky", "Sky"]}, "stuff sky given twice"),
        ({"background": []}, "at least 1 item"),
        ({"templates": ["no place"]}, "should match pattern"),
        ({"max_side": 10_000}, "less than or equal to 2048"),
    ],
)
def test_settings_that_fit_nothing_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        CarConfig(**values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": {"unicorn": "horse"}}, "names are given for 'unicorn', which is no class; classes: car, mug"),
        ({"stuff": ("sky",)}, "stuff is 'sky', which is no class"),
        ({"stuff": CAPTIONS}, "every class is called stuff"),
    ],
)
def test_names_and_stuff_that_are_no_classes_are_refused(changes, message, settings):
    with pytest.raises(ClassNameError, match=message):
        METHOD.remarks(settings(**changes), CAPTIONS)


def test_weights_of_another_kind_are_refused_before_they_are_loaded(settings):
    for which in ("proposer", "classifier"):
        with pytest.raises(UsageError, match="CLIP RN50 sees with a ResNet"):
            METHOD.pin(settings(**{which: ClipWeights(model="RN50")}))
    with pytest.raises(CheckpointError, match="no CLIP model in '/nowhere'"):
        METHOD.pin(settings(classifier=ClipWeights(model="local-dir:/nowhere")))
    assert method_of(settings()) is METHOD
