"""Segmenter: what goes in, what comes out, how it is configured."""

from __future__ import annotations

import subprocess
import sys
from itertools import count, islice

import numpy as np
import pytest
from PIL import Image

from pnp_core import EvalConfig, PnpError, Segmenter
from pnp_core.errors import ClassNameError, ForeignFilesError, SourceError, UnknownNameError, UnusableImage, UsageError
from pnp_core.inputs.scenes.drawing import make_scene, render
from pnp_core.methods.naclip.config import NaclipConfig

SCENE = render(make_scene("test", 0))[0]
SHAPES = ["mug", "fish", "house", "star"]


@pytest.fixture(scope="module")
def tiny() -> Segmenter:
    return Segmenter("tiny", device="cpu", candidates="vocabulary")


@pytest.fixture
def file(tmp_path):
    Image.fromarray(SCENE).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def test_a_path_an_image_and_an_array_have_the_same_mask(tiny, file):
    results = tiny([file, str(file), Image.open(file), Image.fromarray(SCENE), SCENE], SHAPES)
    assert results[0].labels.any()
    for made in results:
        assert (made.labels == results[0].labels).all()
        assert (made.image == SCENE).all()


def test_a_list_gives_a_list_and_a_picture_one_result(tiny):
    assert tiny([], SHAPES) == []
    assert len(tiny([SCENE], SHAPES)) == 1
    assert tiny(SCENE, SHAPES).labels.shape == SCENE.shape[:2]


def test_grey_is_three_equal_channels(tiny):
    grey = np.ascontiguousarray(SCENE[:, :, 0])
    assert (tiny(grey, SHAPES).labels == tiny(np.stack([grey] * 3, axis=2), SHAPES).labels).all()


def test_an_opened_image_is_turned_and_laid_on_white_as_its_file_is_and_stays_as_it_was(tiny, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(SCENE[:40]).save(tmp_path / "turned.jpg", exif=exif)
    clear = Image.fromarray(np.dstack([SCENE, np.full(SCENE.shape[:2], 128, np.uint8)]))
    clear.save(tmp_path / "clear.png")
    for name in ("turned.jpg", "clear.png"):
        with Image.open(tmp_path / name) as opened:
            before = opened.size, opened.mode, opened.getexif().get(0x0112)
            of_image, of_file = tiny([opened, tmp_path / name], SHAPES)
            assert (opened.size, opened.mode, opened.getexif().get(0x0112)) == before
        assert (of_image.image == of_file.image).all()
        assert of_image.notes == of_file.notes != ()
    assert tiny(tmp_path / "turned.jpg", SHAPES).labels.shape == (SCENE.shape[1], 40)


def test_scores_have_the_labels_as_argmax_and_the_confidence_as_maximum(tiny):
    made = tiny(SCENE, SHAPES)
    assert made.classes == ("background", *SHAPES)
    assert made.scores.shape == (5, *SCENE.shape[:2])
    assert made.scores.dtype == made.confidence.dtype == np.float32
    assert (made.scores.argmax(axis=0) == made.labels).all()
    assert (made.scores.max(axis=0) == made.confidence).all()
    assert np.allclose(made.scores.sum(axis=0), 1, atol=1e-5)


def test_scores_of_a_picture_that_is_refined_smaller_are_of_its_own_size():
    made = Segmenter("tiny", candidates="vocabulary", config={"masks": {"max_side": 64}})(SCENE, SHAPES)
    assert made.soft.probabilities.shape == (5, 64, 64)
    assert (made.scores.argmax(axis=0) == made.labels).all()


def test_a_class_that_was_not_asked_about_has_no_score_and_one_that_was_has_its_match():
    made = Segmenter("tiny", candidates={"source": "itm", "top_k": 1, "fallback": "best"})(
        SCENE, ["mug", "fish", "house"]
    )
    (asked,) = made.asked
    assert 0 < made.asked[asked] <= 1
    others = [made.classes.index(name) for name in made.classes[1:] if name != asked]
    assert not made.scores[others].any()


def test_a_picture_that_no_class_matches_is_background_for_certain():
    made = Segmenter("tiny", candidates={"source": "itm", "min_score": 0.999999})(SCENE, ["mug"])
    assert not made.labels.any()
    assert not made.asked
    assert (made.scores[0] == 1).all()
    assert (made.confidence == 1).all()


def test_scores_that_were_not_kept_are_told_in_a_line(tiny):
    with pytest.raises(UsageError, match="scores=True"):
        _ = tiny(SCENE, SHAPES, scores=False).scores


def test_a_stream_reads_no_further_than_it_must():
    tiny, read = Segmenter("tiny", batch_size=2), count()
    endless = (SCENE for _ in read)
    assert len(list(islice(tiny.stream(endless, SHAPES), 3))) == 3
    assert next(read) <= 10


def test_it_shows_itself_and_saves_itself_once(tiny, tmp_path):
    made = tiny(SCENE, SHAPES)
    assert made.overlay().size == (SCENE.shape[1], SCENE.shape[0])
    assert made._repr_png_().startswith(b"\x89PNG")
    made.save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as image:
        assert (np.asarray(image) == made.labels).all()
    with pytest.raises(ForeignFilesError, match="is there: choose another name"):
        made.save(tmp_path / "mask.png")
    with pytest.raises(UsageError, match=r"must end in \.png"):
        made.save(tmp_path / "mask.jpg")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (SCENE.astype(float), "image 0 is an array of float64, "),
        (SCENE[..., :2], r"x2: it must be of uint8 \(0..255\), HxWx3 \(RGB\) or HxW \(grey\)"),
        (SCENE[None], "image 0 is an array of uint8, 1x"),
        (SCENE[:0], "image 0 is an array of uint8, 0x"),
        (np.array(3, np.uint8), "a single number"),
        ([SCENE, None], "image 1 is of the type NoneType: give a path"),
        (b"\x89PNG", "image 0 is of the type bytes"),
        ("gone.png", "image 'gone.png' cannot be read: No such file or directory"),
        (".", "it is a folder"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(tiny, given, says):
    with pytest.raises(SourceError, match=says) as caught:
        tiny(given, SHAPES)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_picture_or_too_large_is_named(tiny, tmp_path):
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(UnusableImage, match=r"a\.png': not a picture"):
        tiny(tmp_path / "a.png", SHAPES)
    small = Segmenter("tiny", config={"salience": {"max_pixels": 100}})
    for given in (SCENE, Image.fromarray(SCENE)):
        with pytest.raises(UnusableImage, match=r"image 0': .* pixels are over the limit of 100"):
            small(given, SHAPES)


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ([], "must not be empty"),
        ("cat,dog", "classes are a list of names"),
        ([3], "classes are a list of names"),
        (3, "classes are a list of names"),
        (["mug", "Mug"], "given twice"),
    ],
)
def test_names_that_are_none_are_refused_in_one_line(tiny, classes, says):
    with pytest.raises(ClassNameError, match=says):
        tiny(SCENE, classes)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"method": "nacip"}, UnknownNameError, "did you mean 'naclip'"),
        ({"preset": "autors"}, UnknownNameError, "did you mean 'authors'"),
        ({"candidates": "imt"}, UnknownNameError, "did you mean 'itm'"),
        ({"candidates": "labels"}, UsageError, "no image-level labels"),
        ({"weights": "tiny", "layr": 1}, UsageError, "unknown key 'method.layr'; did you mean 'method.layer'"),
        ({"batch_size": 0}, UsageError, "runtime.batch_size: must be a number of pictures"),
        ({"config": "gone.yaml"}, UsageError, "cannot read configuration 'gone.yaml'"),
        ({"weights": "nowhere"}, PnpError, "weights 'nowhere'"),
        (
            {"weights": "tiny", "config": EvalConfig(out="x", preset="photo")},
            UsageError,
            "was made for checkpoint photo",
        ),
        ({"method": "naclip", "candidates": "itm", "weights": "tiny-vit"}, UsageError, "naclip has no match score"),
    ],
)
def test_what_does_not_fit_is_told_before_any_picture(arguments, error, says):
    with pytest.raises(error, match=says) as caught:
        Segmenter(**arguments)
    assert "\n" not in str(caught.value)


def test_a_file_a_mapping_and_a_configuration_say_the_same(tmp_path):
    values = {"method": {"dropout": {"iterations": 1}}, "masks": {"crf": {"name": "off"}}}
    (tmp_path / "own.yaml").write_text("method: {dropout: {iterations: 1}}\nmasks: {crf: {name: 'off'}}\n")
    flow = EvalConfig.model_validate({"out": "x", "preset": "tiny", **values})
    configs = [tmp_path / "own.yaml", str(tmp_path / "own.yaml"), values, flow]
    arguments = {"preset": "tiny", "candidates": {"source": "vocabulary", "fallback": "background"}}
    results = [Segmenter(config=config, **arguments)(SCENE, SHAPES) for config in configs]
    usual = Segmenter(**arguments)(SCENE, SHAPES)
    assert all((made.scores == results[0].scores).all() for made in results)
    assert (usual.scores != results[0].scores).any()


def test_a_method_is_given_by_its_name_its_settings_or_its_configuration():
    clip = {"model": "tiny-vit"}
    given = [
        {"weights": "tiny-vit", "method": "naclip", "sigma": 3.0},
        {"method": {"name": "naclip", "clip": clip, "sigma": 3.0}},
        {"method": NaclipConfig.model_validate({"clip": clip, "sigma": 3.0})},
    ]
    with pytest.warns(UserWarning, match="nobody has chosen queries"):
        results = [Segmenter(**arguments)(SCENE, SHAPES) for arguments in given]
    assert results[0].labels.any()
    assert all(set(made.asked.values()) == {None} for made in results)
    assert (results[0].labels == results[1].labels).all()


def test_what_the_model_does_not_know_is_a_warning_where_it_was_called():
    with pytest.warns(UserWarning, match="does not know quux: left out"):
        made = Segmenter("photo", candidates="vocabulary")(SCENE, ["cat", "quux"])
    assert list(made.asked) == ["cat"]


@pytest.mark.slow
def test_prefect_is_not_imported_and_nothing_written(tmp_path, file):
    code = (
        "import sys\nfrom pnp_core import Segmenter\n"
        f"assert Segmenter('tiny')({str(file)!r}, ['mug']).labels.shape\n"
        "assert 'prefect' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["scene.png"]


def test_of_more_than_254_classes_masks_have_16_bits(tmp_path):
    names = ["car", *(f"thing {number}" for number in range(300))]
    wide = Segmenter("tiny", device="cpu", candidates={"source": "vocabulary", "ranker": "none"})
    with pytest.warns(UserWarning, match="knows only its 20 drawn classes"):
        found = wide(np.full((20, 24, 3), 200, np.uint8), names)
    assert found.labels.dtype == np.uint16
    assert found._repr_png_()
    found.save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as saved:
        assert saved.mode == "I;16"
        assert np.array_equal(np.array(saved), found.labels)
