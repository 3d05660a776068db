"""The report page without a browser: what is in it, how large it is, and that data stays text."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_core.config import EvalConfig
from pnp_core.data import ClassMaps, RunSummary
from pnp_core.inputs.images import image_comment
from pnp_core.report import layers
from pnp_core.report import page as page_module
from pnp_core.report.gallery import survey
from pnp_core.report.page import PAGE, report_page
from pnp_core.report.palette import display_palette
from pnp_core.report.run_text import run_markdown
from pnp_core.runs.plan import plan_eval
from pnp_core.stages.scores import read_image_scores
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import read_refs


@pytest.fixture(scope="module")
def config(evaluated) -> EvalConfig:
    return EvalConfig.model_validate(json.loads((evaluated / "run.json").read_text())["config"])


@pytest.fixture(scope="module")
def page(evaluated) -> str:
    return (evaluated / PAGE).read_text("utf-8")


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found.group(1))


def layer(uri: str) -> np.ndarray:
    """Pixels (H, W, 4) of a data URI."""
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGBA"))


def test_run_leaves_a_page_with_every_picture_and_its_layers(page):
    images = data_of(page)["pictures"]
    assert [p["key"] for p in images] == [f"test_{i:05d}" for i in range(8)]
    for image in images:
        width, height = image["thumbnail"]
        assert image["size"] == [192, 192]
        for name in ("photo", "prediction", "truth", "errors"):
            assert layer(image[name]).shape == (height, width, 4)
        sprite = layer(image["salience"])
        assert sprite.shape[:2] == (12 * 2, 12 * len(image["salience_classes"]))
        assert image["passes"] == 2
        assert 0 < image["confidence"] <= 1


def test_scores_of_pictures_are_those_of_their_pixels(config, evaluated, page):
    plan = plan_eval(config)
    assert plan.score
    rows = [row for shard in read_refs(RunFolder(str(evaluated))) for row in read_image_scores(plan.score, shard.name)]
    shown = data_of(page)["pictures"]
    assert [row["miou"] for row in rows] == [image["miou"] for image in shown]
    matrix = np.zeros((21, 21), int)
    for truth, prediction, pixels in data_of(page)["matrix"]:
        matrix[truth, prediction] = pixels
    assert matrix.sum() == 8 * 192 * 192
    iou = matrix[0, 0] / (matrix[0].sum() + matrix[:, 0].sum() - matrix[0, 0])
    assert json.loads((evaluated / "scores.json").read_text())["per_class_iou"]["background"] == pytest.approx(iou)


def test_only_the_pages_own_script_and_style_may_run_and_only_pictures_beside_it_are_requested(page):
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    script = re.findall(r"<script>(.*?)</script>", page, re.S)
    style = re.findall(r"<style>(.*?)</style>", page, re.S)
    assert (len(script), len(style)) == (1, 1)
    for kind, text in (("script", script[0]), ("style", style[0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in unescape(policy)
    assert "default-src 'none'; img-src 'self' data:;" in unescape(policy)
    without_data = re.sub(r'id="data">.*?</script>', "", page, flags=re.S)
    assert not re.search(r'(?:src|href)="(?!#|data:)', without_data)


def test_page_never_grows_over_its_budget_and_says_what_it_left_out(config, evaluated, monkeypatch):
    plan, shards = plan_eval(config), read_refs(RunFolder(str(evaluated)))
    summary = RunSummary(config.out, images=8, labelled=8)
    whole = report_page(config, plan, shards, summary)
    monkeypatch.setattr(page_module, "_RESERVE", 0)
    small = report_page(config, plan, shards, summary, 12_000)
    shown = len(data_of(small.decode())["pictures"])
    assert 0 < shown < 8
    assert f"{8 - shown} of the chosen ones had no room in the page" in small.decode()
    images = sum(len(v) for p in data_of(small.decode())["pictures"] for v in p.values() if isinstance(v, str))
    assert images <= 12_000 < len(whole)


def test_page_says_of_how_many_pictures_of_the_split_the_scores_are(config, evaluated, page):
    assert "scored on 8 of 200 pictures of the split" in page
    plan, shards = plan_eval(config), read_refs(RunFolder(str(evaluated)))
    scores = json.loads((evaluated / "scores.json").read_text())
    whole = RunSummary(config.out, images=8, labelled=8, scores=scores, split_images=8)
    assert "of the split" not in report_page(config, plan, shards, whole).decode()
    assert "**mIoU" in run_markdown(plan, shards, whole)
    assert "of the split" not in run_markdown(plan, shards, whole)
    whole.split_images = 1449
    assert "on 8 of 1449 pictures of the split" in run_markdown(plan, shards, whole)


def test_of_more_pictures_than_fit_half_are_the_worst_and_half_are_spread(config, evaluated):
    plan, shards = plan_eval(config), read_refs(RunFolder(str(evaluated)))
    assert plan.score
    found = survey(plan, shards, 4)
    keys = {key for shown in found.shown.values() for key in shown}
    scores = {r["key"]: r["miou"] for s in shards for r in read_image_scores(plan.score, s.name)}
    spread = {"test_00000", "test_00004"}
    worst = sorted(set(scores) - spread, key=lambda key: scores[key])[:2]
    assert keys == spread | set(worst)
    assert (found.images, found.number_shown) == (8, 4)


def test_errors_are_told_apart():
    truth = np.array([[0, 1, 1, 1, 0, 255]], np.uint8)
    labels = np.array([[0, 1, 2, 0, 2, 1]], np.uint8)
    pixels = layer(layers.error_layer(labels, truth, False))[0]
    colours = ["#" + bytes(pixel[:3].tolist()).hex() if pixel[3] else "clear" for pixel in pixels]
    errors = layers.ERRORS
    expected = ["clear", "clear", errors["wrong class"], errors["missed"], errors["too much"], errors["not scored"]]
    assert colours == expected
    as_background = layer(layers.error_layer(labels, truth, True))[0]
    assert "#" + bytes(as_background[5, :3].tolist()).hex() == errors["too much"]


def test_mask_layer_has_the_display_colours_and_a_clear_background():
    pixels = layer(layers.label_layer(np.array([[0, 1, 20, 255]], np.uint8)))[0]
    assert pixels[:, 3].tolist() == [0, 255, 255, 255]
    assert pixels[1:3, :3].tolist() == display_palette()[[1, 20]].tolist()
    assert pixels[3, :3].tolist() == [255, 255, 255]


def test_salience_of_each_class_is_scaled_by_its_peak_over_the_passes():
    maps = np.zeros((2, 2, 2, 3), np.float32)
    maps[0, 0, 0, 0], maps[1, 0, 1, 2], maps[1, 1, 0, 1] = 2.0, 1.0, 0.25
    salience = ClassMaps(maps, (3, 5), np.ones(2, np.float32), 4, 6)
    sprite = layer(layers.salience_sprite(salience, [1, 0]))[..., 0]
    assert sprite.shape == (4, 6)
    assert {(int(y), int(x)): int(sprite[y, x]) for y, x in np.argwhere(sprite)} == {
        (0, 3): 255,
        (2, 1): 255,
        (3, 5): 128,
    }


EVIL = '"><script>alert("comment")</script>'


@pytest.mark.parametrize(
    ("form", "save"),
    [
        ("jpg", {"exif": {0x010E: EVIL}}),
        ("jpg", {"comment": EVIL.encode()}),
        ("png", {"pnginfo": EVIL}),
        ("jpg", {"exif": {}}),
    ],
)
def test_comment_of_a_file_is_read_as_one_line_of_text(tmp_path: Path, form, save):
    from PIL.PngImagePlugin import PngInfo

    values = dict(save)
    if "exif" in save:
        exif = Image.Exif()
        for tag, text in save["exif"].items():
            exif[tag] = text
        values["exif"] = exif
    if "pnginfo" in save:
        values["pnginfo"] = PngInfo()
        values["pnginfo"].add_text("Comment", f"{EVIL}\n\x07")
    Image.new("RGB", (4, 4)).save(tmp_path / f"a.{form}", **values)
    expected = "" if save == {"exif": {}} else EVIL
    assert image_comment((tmp_path / f"a.{form}").read_bytes()) == expected


def test_comment_of_anything_else_is_empty():
    assert image_comment(b"") == image_comment(b"\xff\xd8 no picture") == ""
