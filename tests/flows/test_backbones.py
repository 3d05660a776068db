"""The commands with every backbone, from checkpoint folders as users have them."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.numpy import load_file
from typer.testing import CliRunner

from flows.cli import app
from pnp_core.methods.pnp.backbones import backbone_card, backbone_names
from tests.pnp_core.methods.pnp.backbones.originals import random_state
from tests.pnp_core.methods.pnp.backbones.small import (
    bridgetower_config,
    save_bridgetower,
    save_small,
    save_vocabulary,
)


def call(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module", params=backbone_names())
def checkpoint(request, tmp_path_factory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, str(save_small(request.param, folder)[0])


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for name, size in {"wide": (40, 60), "tall": (70, 30)}.items():
        Image.fromarray(noise.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def test_label_runs_with_every_backbone(checkpoint, images, tmp_path):
    name, folder = checkpoint
    out = tmp_path / "out"
    options = ["--backbone", name, "--checkpoint", folder, "--image-size", "48", "--layer", "0", "--head", "1"]
    settings = tmp_path / "rest.yaml"
    settings.write_text(yaml.safe_dump({"salience": {"backbone": {"heads": None}, "dropout": {"amount": 2}}}))
    done = call(
        "label", str(images), "--classes", "car,ice cream", "--out", str(out), "--config", str(settings), *options,
        "--json",
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["images"], found["labelled"], found["quarantined"]) == (2, 2, 0)
    (salience,) = (out / "salience").glob("*/*.parquet")
    assert pq.read_table(salience).num_rows == 2
    (masks,) = (out / "masks").glob("*/*.parquet")
    sizes = {row["key"]: Image.open(io.BytesIO(row["mask"]["bytes"])).size for row in pq.read_table(masks).to_pylist()}
    assert sizes == {"wide": (60, 40), "tall": (30, 70)}
    run = json.loads((out / "run.json").read_text())
    assert run["config"]["method"]["backbone"]["name"] == name


def test_defaults_of_a_backbone_are_its_cards(checkpoint, tmp_path):
    from pnp_core.config import LabelConfig

    name, folder = checkpoint
    card = backbone_card(name)
    values = {"source": "x", "classes": ["car"], "out": "y", "preset": "authors"}
    chosen = LabelConfig.model_validate({**values, "salience": {"backbone": {"name": name, "checkpoint": folder}}})
    assert chosen.method.backbone.image_size == card.image_size
    assert (chosen.method.layer, chosen.method.head) == (card.layer, card.head)
    assert chosen.method.backbone.checkpoint == folder
    own = {"backbone": {"name": name, "image_size": 64}, "layer": 1}
    assert LabelConfig.model_validate({**values, "salience": own}).method.layer == 1


def test_layer_that_is_a_guess_is_said_to_be_one(tmp_path, images):
    config = bridgetower_config(num_hidden_layers=5)
    config.text_config.num_hidden_layers = config.vision_config.num_hidden_layers = 5
    folder, _ = save_bridgetower(tmp_path / "model", config)
    options = ["--backbone", "bridgetower", "--checkpoint", str(folder), "--image-size", "48"]
    command = ["label", str(images), "--classes", "car", "--out", str(tmp_path / "out"), *options]
    settings = tmp_path / "rest.yaml"
    settings.write_text(yaml.safe_dump({"salience": {"dropout": {"amount": 2}}}))
    said = " ".join(call(*command, "--config", str(settings)).stderr.split())
    assert "layer 3 and head 0 of bridgetower are a guess; `pnp-ovss tune` finds better ones" in said
    assert "a guess" not in call(*command, "--config", str(settings), "--head", "1").stderr


def test_layer_the_model_does_not_have_is_one_line(checkpoint, images, tmp_path):
    name, folder = checkpoint
    options = ["--backbone", name, "--checkpoint", folder, "--image-size", "48", "--layer", "5"]
    settings = tmp_path / "rest.yaml"
    settings.write_text(yaml.safe_dump({"salience": {"backbone": {"heads": None}}}))
    arguments = [str(images), "--classes", "car", "--out", str(tmp_path / "out"), "--config", str(settings)]
    done = call("label", *arguments, *options, code=2)
    last = 2 if name == "blip" else 1
    assert f"layer 5 is out of range: the model has layers 0 to {last}" in done.stderr
    done = call("label", *arguments, *options[:-1], str(last), code=2)
    assert f"layer {last} is the last one: its salience is zero" in done.stderr


@pytest.mark.ops
def test_tune_finds_layers_that_are_there(checkpoint, images, tmp_path):
    name, folder = checkpoint
    out, settings = tmp_path / "out", tmp_path / "rest.yaml"
    rest = {"salience": {"backbone": {"heads": None}}, "reward": {"clip": {"model": "tiny"}}}
    settings.write_text(yaml.safe_dump(rest))
    options = ["--backbone", name, "--checkpoint", folder, "--image-size", "48", "--config", str(settings)]
    own = ["--data", str(images), "--classes", "car,ice cream", "--candidates", "vocabulary"]
    quick = ["--optimizer", "random", "--trials", "3", "--images", "2", "--compare", "off"]
    call("tune", "folder", *own, *options, *quick, "--out", str(out))
    best = yaml.safe_load((out / "best.yaml").read_text())["method"]
    assert best["layer"] < (2 if name == "blip" else 1)


def test_picture_may_be_squashed_to_a_rectangle(checkpoint, images, tmp_path):
    name, folder = checkpoint
    out, settings = tmp_path / "out", tmp_path / "rest.yaml"
    backbone = {"name": name, "checkpoint": folder, "image_size": [48, 96], "heads": None}
    salience = {"backbone": backbone, "dropout": {"amount": 2}, "layer": 0, "head": 0}
    settings.write_text(yaml.safe_dump({"salience": {**salience, "candidates": {"source": "vocabulary"}}}))
    call("label", str(images), "--classes", "car,ice cream", "--out", str(out), "--config", str(settings))
    (maps,) = (out / "salience").glob("*/*.safetensors")
    shapes = {tensor.shape for tensor in load_file(maps).values()}
    patch = 16 if name == "photo" else 8
    assert shapes == {(4, 2, 48 // patch, 96 // patch)}


def test_backbones_lists_all_with_their_facts():
    cards = json.loads(call("backbones", "--json").stdout.splitlines()[-1])
    assert {card["name"]: (card["layers"], card["heads"]) for card in cards} == {
        "albef": (6, 12), "blip": (12, 12), "bridgetower": (6, 16), "mplug": (6, 12), "photo": (2, 4),
    }  # fmt: skip
    shown = call("backbones").stdout
    for card in cards:
        assert all(weights["name"] in shown for weights in card["weights"])


def test_doctor_measures_what_is_at_hand(checkpoint):
    name, folder = checkpoint
    done = call("doctor", "--backbone", name, "--checkpoint", folder, "--image-size", "48", "--json")
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["problem"] is None
    assert found["folder"] == folder
    assert 0 < found["measured"]["seconds"] < 60
    assert found["measured"]["memory_gb"] > 0


def test_doctor_says_what_is_missing_and_what_it_would_cost(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = call("doctor", "--backbone", "bridgetower", "--json", code=1)
    found = json.loads(done.stdout.splitlines()[-1])
    assert "BridgeTower/bridgetower-large-itm-mlm-itc" in found["problem"]
    assert "HF_HUB_OFFLINE is set" in found["problem"]
    assert (found["offline"], found["measured"]) == (True, None)
    assert found["expected"]["seconds"] > 1
    assert found["expected"]["memory_gb"] > 3.4


def test_doctor_tells_weights_that_are_not_there_from_a_size_that_does_not_fit(checkpoint):
    name, folder = checkpoint
    done = call("doctor", "--backbone", name, "--checkpoint", folder, "--image-size", "50", code=1)
    said = " ".join(done.stdout.split())
    assert "at hand, but not to be used like this" in said
    patch, next_side = (16, 64) if name == "photo" else (8, 56)
    assert f"is not a multiple of the model's patch size {patch}: take 48 or {next_side}" in said


def test_authors_file_is_converted_by_the_command(tmp_path):
    torch.save({"model": random_state("albef")}, tmp_path / "flickr30k.pth")
    options = ["--backbone", "albef", "--out", str(tmp_path / "albef")]
    options += ["--tokenizer", str(save_vocabulary(tmp_path / "vocabulary"))]
    done = call("convert-weights", str(tmp_path / "flickr30k.pth"), *options, "--json")
    assert json.loads(done.stdout.splitlines()[-1])["dropped"]["training queues"] == 3
    again = call("convert-weights", str(tmp_path / "flickr30k.pth"), *options, code=2)
    assert "is there already" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1
    call("doctor", "--backbone", "albef", "--checkpoint", str(tmp_path / "albef"), "--image-size", "48")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["doctor", "--backbone", "blib"], "unknown backbone 'blib'; did you mean 'blip'?"),
        (["doctor", "--device", "warp"], "device 'warp' is not available"),
        (["doctor", "--image-size", "0"], "image_size: Input should be greater than or equal to 16"),
        (["convert-weights", "x.pth", "--backbone", "albe", "--out", "y"], "did you mean 'albef'?"),
        (["convert-weights", "x.pth", "--backbone", "bridgetower", "--out", "y"], "published as they are read"),
        (["label", ".", "--classes", "car", "--out", "y", "--backbone", "blib"], "did you mean 'blip'?"),
        (
            ["label", ".", "--classes", "car", "--out", "y", "--backbone", "albef"],
            "their authors publish them as a file",
        ),
    ],
)
def test_mistakes_end_in_one_line(arguments, says):
    done = call(*arguments, code=2)
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
