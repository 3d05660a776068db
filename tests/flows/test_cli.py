"""The command line as a user types it: exit codes, one clear line, nothing on stdout but the result."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from flows.cli import app
from flows.cli.console import show_summary
from flows.cli.options import Given
from pnp_core.config import EvalConfig, LabelConfig
from pnp_core.data import RunSummary
from pnp_core.methods.pnp.presets import PRESETS

runner = CliRunner()


@pytest.fixture
def images(tmp_path) -> str:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (32, 24), (200, 30, 30)).save(folder / "a.png")
    return str(folder)


def refused(arguments: list[str], code: int, message: str) -> None:
    """The command ends with the code and one line that says why; no traceback, nothing on stdout."""
    result = runner.invoke(app, arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert "Traceback" not in result.stderr


def label(images: str, tmp_path: Path, *options: str, classes: str = "car,key") -> list[str]:
    weights = [] if {"--preset", "--checkpoint", "--backbone"} & {*options} else ["--preset", "tiny"]
    return ["label", images, "--classes", classes, "--out", str(tmp_path / "out"), *weights, *options]


def test_unknown_dataset(tmp_path):
    refused(["eval", "vok", "--out", str(tmp_path / "o")], 2, "unknown dataset 'vok'; available: ade20k, coco-object")


def test_unknown_split(tmp_path):
    refused(["eval", "scenes", "--split", "tset", "--out", str(tmp_path / "o")], 2, "did you mean 'test'?")


def test_unknown_preset(images, tmp_path):
    refused(label(images, tmp_path, "--preset", "autors"), 2, "did you mean 'authors'?")


def test_unknown_backbone(images, tmp_path):
    refused(
        label(images, tmp_path, "--backbone", "clop"),
        2,
        "unknown backbone 'clop'; available: albef, blip, bridgetower, mplug",
    )


def test_unknown_crf(images, tmp_path):
    (tmp_path / "c.yaml").write_text("masks: {crf: {name: sparse}}")
    refused(label(images, tmp_path, "--config", str(tmp_path / "c.yaml")), 2, "unknown CRF 'sparse'")


def test_class_name_the_text_encoder_cannot_read(images, tmp_path):
    refused(label(images, tmp_path, classes="car,☕"), 2, "class '☕' is unknown to the text encoder")


@pytest.mark.parametrize("classes", ["car,Car", "car,,key", " "])
def test_duplicate_or_empty_class_names(images, tmp_path, classes):
    refused(label(images, tmp_path, classes=classes), 2, "class")


def test_checkpoint_that_is_no_match_model(images, tmp_path):
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert/config.json").write_text('{"model_type": "bert"}')
    refused(label(images, tmp_path, "--checkpoint", str(tmp_path / "bert")), 2, "is a 'bert' model, not blip")


def test_checkpoint_with_other_heads_than_expected(images, tmp_path, random_blip):
    refused(
        label(images, tmp_path, "--checkpoint", str(random_blip)),
        2,
        "has 2 cross-attention heads, the configuration expects 12",
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [("{layer: 7}", "layer 7 is out of range: the model has layers 0 to 1"), ("{head: 5}", "head 5 is out of range")],
)
def test_layer_or_head_out_of_range(images, tmp_path, values, message):
    (tmp_path / "c.yaml").write_text(f"salience: {values}")
    refused(label(images, tmp_path, "--config", str(tmp_path / "c.yaml")), 2, message)


def test_last_layer_is_refused_because_its_salience_is_zero(images, tmp_path):
    (tmp_path / "c.yaml").write_text("salience: {layer: 1}")
    refused(label(images, tmp_path, "--config", str(tmp_path / "c.yaml")), 2, "layer 1 is the last one")


def test_yaml_holds_where_no_option_is_given_and_options_win_over_it(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "{preset: authors, limit: 5, shards: 2, png: true, masks: {threshold: 0.3}, runtime: {device: cpu}}"
    )
    config = Given(EvalConfig, {"out": "x", "settings": str(path)}).config()
    assert (config.preset, config.limit, config.shards, config.png) == ("authors", 5, 2, True)
    assert (config.masks.threshold, config.method.sum, config.runtime.device) == (0.3, "first_twice", "cpu")
    options = {"settings": str(path), "preset": "tiny", "runtime": {"device": "cuda"}, "limit": 7, "png": False}
    config = Given(EvalConfig, {"out": "x", **options}).config()
    assert (config.preset, config.limit, config.shards, config.png) == ("tiny", 7, 2, False)
    assert (config.masks.threshold, config.runtime.device) == (0.3, "cuda")


def weights(**backbone: str) -> dict[str, Any]:
    return {"salience": {"backbone": backbone}}


@pytest.mark.parametrize(
    ("options", "dataset", "expected"),
    [
        ({}, "scenes", ("tiny", "blip", "tiny")),
        ({}, "voc21", ("photo", "photo", "photo")),
        (weights(checkpoint="tiny"), "voc21", ("tiny", "blip", "tiny")),
        (weights(checkpoint="photo"), "scenes", ("photo", "photo", "photo")),
        (weights(checkpoint="some/folder"), "scenes", ("authors", "blip", "some/folder")),
        (weights(name="blip"), "voc21", ("authors", "blip", "Salesforce/blip-itm-large-flickr")),
        (weights(name="albef"), "voc21", ("authors", "albef", "flickr30k.pth")),
        ({"preset": "paper", **weights(checkpoint="photo")}, "voc21", ("paper", "photo", "photo")),
    ],
)
def test_preset_and_weights_follow_from_what_is_given(options, dataset, expected):
    config = Given(EvalConfig, {"out": "x", "dataset": dataset, **options}).config()
    assert (config.preset, config.method.backbone.name, config.method.backbone.checkpoint) == expected


def test_photographs_of_ones_own_get_the_photo_model():
    config = Given(LabelConfig, {"out": "x", "source": "y", "classes": ["cat"]}).config()
    assert config.method.backbone.checkpoint == "photo"


def test_error_nobody_foresaw_is_one_line_too(images, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr("pnp_core.runs.preflight.check_label", broken)
    refused(label(images, tmp_path), 1, "RuntimeError: out of memory (--debug shows where)")


def test_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(label(str(tmp_path / "empty"), tmp_path), 2, "no pictures in")


def test_missing_source(tmp_path):
    refused(label(str(tmp_path / "gone"), tmp_path), 2, "does not exist")


def test_file_that_is_no_image(tmp_path):
    (tmp_path / "notes.jpg").write_text("not a picture")
    refused(label(str(tmp_path / "notes.jpg"), tmp_path), 2, "not a picture in a known format")


def test_output_that_cannot_be_written(images, tmp_path):
    (tmp_path / "out").write_text("a file is in the way")
    refused(label(images, tmp_path), 2, "is a file, not a folder")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("masks: {treshold: 0.2}", "unknown key 'masks.treshold'; did you mean 'masks.threshold'?"),
        ("masks: {threshold: 2}", "masks.threshold: Input should be less than 1"),
        ("salience: {dropout: {amount: 1.5}}", "must be a whole number of patches"),
        ("- a list", "must be a mapping"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_wrong_configuration_file(images, tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    refused(label(images, tmp_path, "--config", str(tmp_path / "c.yaml")), 2, message)


def test_missing_configuration_file(images, tmp_path):
    refused(label(images, tmp_path, "--config", str(tmp_path / "gone.yaml")), 2, "cannot read configuration")


def test_unavailable_device(images, tmp_path):
    refused(label(images, tmp_path, "--device", "warp"), 2, "device 'warp' is not available")


def test_missing_option_is_a_usage_error(images):
    assert runner.invoke(app, ["label", images]).exit_code == 2


def test_help_names_every_preset():
    shown = runner.invoke(app, ["label", "--help"], env={"COLUMNS": "200"}).stdout
    assert all(name in shown for name in PRESETS)


def test_debug_shows_the_traceback(tmp_path):
    result = runner.invoke(app, ["eval", "vok", "--out", str(tmp_path / "o"), "--debug"])
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ}


def command(arguments: list[str], environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        env=environment, cwd=cwd, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.mark.ops
def test_label_from_another_directory_prints_one_json_object(images, tmp_path, environment):
    done = command([*label(images, tmp_path, "--png", "--json", classes="car,dog")], environment, tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert {"images": 1, "labelled": 1, "quarantined": 0, "resumed": 0}.items() <= found.items()
    assert found["out"] == str(tmp_path / "out")
    assert set(found["seconds"]) == {"shard", "salience", "masks", "png"}
    assert "warning: the bundled tiny model knows only its 20 drawn classes, not dog" in done.stderr
    with Image.open(next((tmp_path / "out/png").rglob("a.png"))) as mask:
        assert mask.size == (32, 24)


@pytest.mark.ops
def test_error_inside_the_flow_is_one_line_too(images, tmp_path, environment):
    assert runner.invoke(app, label(images, tmp_path)).exit_code == 0
    shard = tmp_path / "out/shards/000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    for record in (tmp_path / "out").rglob("*.done.json"):
        record.unlink()
    done = command(label(images, tmp_path), environment, tmp_path)
    assert done.returncode == 1
    assert "000000.tar' is damaged" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("split", "told"), [(1449, "38 of 1449 pictures, 2 of 21"), (None, "38 pictures, 2 of 21")])
def test_console_says_of_how_many_pictures_of_the_split_the_scores_are(split, told):
    scores = {
        "miou_present": 0.5, "miou_union": 0.4, "pixel_accuracy": 0.9, "images_scored": 38, "pixels": 9,
        "pixels_ignored": 1, "classes_present": 2, "classes": 21, "per_class_iou": {"cat": 0.5},
    }  # fmt: skip
    printed = io.StringIO()
    show_summary(
        RunSummary("out", images=38, labelled=38, scores=scores, split_images=split), Console(file=printed, width=200)
    )
    assert told in printed.getvalue()
