"""SimZSS from picture to scores, against the steps written down one by one."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from pnp_core import EvalConfig, LabelConfig
from pnp_core.data import ClassMaps
from pnp_core.errors import CheckpointError, ClassNameError, UsageError
from pnp_core.masks.config import MaskConfig
from pnp_core.methods import load_method, method_config, method_of
from pnp_core.methods.simzss.config import SimzssConfig
from pnp_core.methods.simzss.sight import boxes_of, seen_size
from pnp_core.methods.simzss.weights import convert
from tests.pnp_core.methods.simzss.released import patches_by_hand, random_state, save, text_by_hand

CAPTIONS = ("cat", "dog", "key")
WORDS = {"cat": [2368], "dog": [1929], "key": [1458]}
"""CLIP's number of each word."""
SIZE = (20, 41)


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def folder(state, tmp_path_factory):
    place = tmp_path_factory.mktemp("simzss")
    return str(convert(save(place, state), place / "converted").folder)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def settings(folder, **changes):
    values = {"checkpoint": folder, "templates": ("{}",), "short_side": 42, "window": {"side": 42, "stride": 28}}
    return SimzssConfig(**{**values, **changes})


def loaded_of(config):
    return load_method(config, method_of(config).pin(config), CAPTIONS, "cpu")


def seen_by(config, image, asked):
    loaded = loaded_of(config)
    return loaded.look(loaded.encode([loaded.prepare(image)]), {0: asked})[0]


def scores_of(config, seen, asked, **masks):
    maps = ClassMaps(seen.maps, asked, None, *SIZE, of=seen.of)
    return method_of(config).decide(config, MaskConfig(blur=0, **masks), maps, SIZE)


def bilinear(maps, size):
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize(
    ("window", "size", "lefts", "side"),
    [
        ({"side": 42, "stride": 28}, (42, 86), (0, 28, 44), 42),  # 41 * 42 / 20 = 86.1; the last window is moved back
        (None, (42, 84), (0,), 84),  # 86 is nearest to 6 patches
    ],
)
def test_scores_are_those_of_the_steps_one_by_one(window, size, lefts, side, state, folder, image):
    config = settings(folder, window=window, background=("key",))
    seen = seen_by(config, image, (1, 2))
    assert seen.of == (0, 1, 2), "the key was not asked about, but as background"
    assert seen.maps.shape == (1, 3, 3, len(lefts) * side // 14)
    pixels = torch.from_numpy(loaded_of(config).prepare(image).pixels).permute(2, 0, 1) / 255
    assert pixels.shape == (3, *size)
    texts = torch.stack([text_by_hand(state, WORDS[name]) for name in ("key", "cat", "dog")])
    total, times = torch.zeros(1, 3, *size), torch.zeros(size)
    for left in lefts:
        patches = patches_by_hand(state, pixels[:, :, left : left + side])
        total[..., left : left + side] += bilinear((texts @ patches.T).view(1, 3, 3, side // 14), (42, side))
        times[:, left : left + side] += 1
    cosines = bilinear(total / times, SIZE)[0].numpy()
    scores = scores_of(config, seen, (1, 2), background="always", threshold=0.4)
    np.testing.assert_allclose(scores.channels, cosines, atol=1e-5)
    assert scores.labels == (0, 1, 2, 0)
    probabilities = np.exp(40 * cosines.astype(float))
    probabilities /= probabilities.sum(0)
    wanted = np.concatenate([probabilities, np.full((1, *SIZE), 0.4)])
    np.testing.assert_allclose(np.exp(scores.finished(scores.channels)), wanted, atol=1e-3)


def test_without_names_of_background_the_threshold_alone_makes_it(folder, image):
    config = settings(folder)
    seen = seen_by(config, image, (1, 2, 3))
    assert seen.of == (1, 2, 3)
    assert scores_of(config, seen, (1, 2, 3), background="always", threshold=0.4).labels == (1, 2, 3, 0)
    assert scores_of(config, seen, (1, 2, 3), background="always", threshold=0).labels == (1, 2, 3)
    assert scores_of(config, seen, (1, 2, 3), background="never", threshold=0.4).labels == (1, 2, 3)


def test_pictures_of_several_sizes_are_seen_together_as_alone(folder, image):
    config = settings(folder)
    loaded = loaded_of(config)
    pictures = [image, image[:, :20].copy(), np.full((3, 200, 3), 9, np.uint8)]
    together = loaded.look(loaded.encode([loaded.prepare(one) for one in pictures]), dict.fromkeys(range(3), (1, 3)))
    for n, one in enumerate(pictures):
        np.testing.assert_allclose(together[n].maps, seen_by(config, one, (1, 3)).maps, atol=1e-5)


def test_a_picture_that_nothing_is_asked_of_has_no_maps(folder, image):
    seen = seen_by(settings(folder, background=("key",)), image, ())
    assert seen.maps.shape[1] == 0
    assert seen.fits(())


def test_sizes_and_windows_are_those_of_the_protocol():
    config = SimzssConfig()
    assert (config.short_side, config.templates, config.window.side, config.window.stride) == (
        448,
        "imagenet",
        448,
        224,
    )
    assert seen_size((375, 500), config) == (448, 597)
    assert boxes_of((448, 597), config) == [(0, 0, 448, 448), (0, 149, 448, 597)]
    assert len(boxes_of(seen_size((500, 1500), config), config)) == 5, "1344 = 448 + 4 * 224"
    thin = seen_size((10, 4000), config)
    assert thin == (14, 2048), "no window is cut from its height, which is a patch"
    assert seen_size((100, 1000), config) == (210, 2048), "204.8 is nearest to 15 patches"


@pytest.mark.parametrize(("dataset", "threshold"), [("voc21", 0.3), ("context60", 0.3), ("voc20", 0), ("ade20k", 0)])
def test_nothing_refines_and_only_a_background_has_a_threshold(dataset, threshold):
    config = EvalConfig(out="x", dataset=dataset, method="simzss")
    assert (config.masks.crf.name, config.masks.blur, config.masks.threshold) == ("off", 0, threshold)
    assert EvalConfig.model_validate(config.model_dump(mode="json")) == config


def test_whoever_runs_it_is_told_whose_protocol_it_is():
    config = LabelConfig(out="x", source="y", classes=("cat",), method="simzss")
    assert config.masks.threshold == 0.3
    (remark,) = method_of(config.method).remarks(config.method, config.classes)
    assert "is this project's protocol" in remark
    assert "supervised in its training" in remark
    other = SimzssConfig(queries={"mug": ["mug"]})
    with pytest.raises(ClassNameError, match="queries are given for 'mug', which is no class"):
        method_of(other).remarks(other, ("cat",))


def test_the_place_of_the_weights_names_no_result(folder):
    assert settings(folder).facts() == settings("elsewhere").facts()
    assert settings(folder).facts() != settings(folder, short_side=56).facts()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": {"side": 440, "stride": 220}}, "440 pixels are no whole patches of 14"),
        ({"window": {"side": 448, "stride": 449}}, "leave pixels out"),
        ({"short_side": 450}, "multiple of 14"),
        ({"long_side": 400}, "no larger than the picture may be"),
        ({"queries": {"car": ["a"], "Car": ["b"]}}, "queries are given twice for car"),
        ({"queries": {"car": []}}, "at least 1 item"),
        ({"templates": ["no place"]}, "should match pattern"),
        ({"scale": 0}, "greater than 0"),
    ],
)
def test_settings_that_fit_nothing_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        SimzssConfig(**values)


def test_without_weights_it_says_how_to_have_some():
    with pytest.raises(CheckpointError, match="has no bundled weights") as error:
        method_of(SimzssConfig()).pin(SimzssConfig())
    assert "pnp-ovss convert-weights FILE --method simzss --out FOLDER" in str(error.value)


def test_methods_without_weights_of_their_own_convert_none(tmp_path):
    with pytest.raises(UsageError, match="need no conversion"):
        method_of(method_config("naclip")).convert(tmp_path / "x", tmp_path / "y")
