"""The bundled photo model on photographs: classes it knows are found, others are told; odd pictures harm nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

import pnp_core
from flows.cli import app
from pnp_core.methods.pnp.backbones.known_names import known_names, unknown_names

runner = CliRunner()


def call(*arguments: str, code: int = 0):
    result = runner.invoke(app, [*arguments])
    assert result.exit_code == code, result.output
    return result


def masks_of(out) -> dict[str, np.ndarray]:
    (table,) = (out / "masks").glob("*/*.parquet")
    rows = pq.read_table(table).to_pylist()
    return {row["key"]: np.array(Image.open(io.BytesIO(row["mask"]["bytes"]))) for row in rows}


def test_most_pixels_of_a_cat_a_dog_and_a_truck_are_labelled_as_such(shared_data, tmp_path):
    names = "cat,dog,truck,quux"
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("chelsea_cat.png", "dog.jpg", "truck.jpg"):
        image = Image.open(shared_data / "demo" / name).convert("RGB")
        image.thumbnail((400, 400))
        image.save(folder / f"{name.split('.')[0]}.png")
    done = call("label", str(folder), "--classes", names, "--out", str(tmp_path / "out"), "--json")
    assert "warning: the photo model does not know quux" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["labelled"] == 3
    for key, mask in masks_of(tmp_path / "out").items():
        pixels = np.bincount(mask.ravel(), minlength=5)[1:]
        assert pixels.argmax() == ["chelsea_cat", "dog", "truck"].index(key), key
        assert pixels.max() > 0.1 * mask.size, key


def test_pictures_of_odd_sizes_and_colours_are_labelled(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    noise = np.random.default_rng(0)
    Image.fromarray(noise.integers(0, 255, (30, 30, 3), dtype=np.uint8)).save(folder / "small.png")
    Image.fromarray(noise.integers(0, 255, (60, 3000, 3), dtype=np.uint8)).save(folder / "wide.jpg")
    Image.fromarray(noise.integers(0, 255, (40, 50), dtype=np.uint8)).save(folder / "grey.png")
    Image.fromarray(noise.integers(0, 255, (40, 50, 4), dtype=np.uint8), "CMYK").save(folder / "cmyk.jpg")
    arguments = ["--classes", "cat,sea lion", "--candidates", "vocabulary", "--out", str(tmp_path / "out")]
    call("label", str(folder), *arguments)
    shapes = {key: mask.shape for key, mask in masks_of(tmp_path / "out").items()}
    assert shapes == {"small": (30, 30), "wide": (60, 3000), "grey": (40, 50), "cmyk": (40, 50)}


def test_names_that_are_all_unknown_end_in_one_line(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "in/a.png")
    done = call("label", str(tmp_path / "in"), "--classes", "quux,see lion", "--out", str(tmp_path / "out"), code=2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert "knows none of the class names: quux, see lion (nearest: sea lion" in done.stderr


@pytest.mark.parametrize("name", ["sea lion", "Sea-Lions", "tv monitor", "pottedplant", "person", "hot dog"])
def test_models_says_that_it_knows_a_name(name):
    assert call("models", "photo", "--knows", name).stdout == f"known: {name}\n"


def test_models_is_asked_for_several_names_as_label_is_told_them():
    done = call("models", "photo", "--knows", "cat,sea lion, quux", code=1)
    assert done.stdout == "known: cat\nknown: sea lion\nunknown: quux\n"


def test_models_says_what_is_nearest_to_a_name_it_does_not_know():
    done = call("models", "--knows", "see lion", "--knows", "cat", "--json", code=1)
    asked = json.loads(done.stdout)["asked"]
    assert asked["cat"] == {"known": True, "nearest": []}
    assert (asked["see lion"]["known"], asked["see lion"]["nearest"][0]) == (False, "sea lion")
    assert "did you mean 'photo'" in call("models", "fhoto", code=2).stderr


def test_vocabulary_holds_the_classes_of_common_datasets():
    from pnp_core.inputs.cards import load_card

    assert len(known_names("photo")) > 2000
    for card in ("voc21", "coco-object"):
        assert unknown_names("photo", load_card(card).captions) == []


def test_tuning_judges_by_the_match_score_and_leaves_out_unknown_names(tmp_path):
    (tmp_path / "tune.yaml").write_text(
        "reward: {match_side: 96, batch_size: 4}\nsearch: {trials: 3}\nspace: {heads: [0]}\n"
        "salience: {backbone: {image_size: 192}}\n"
    )
    images = str(Path(pnp_core.__file__).parent / "_photographs")
    arguments = ["--data", images, "--classes", "cat,person,sky", "--images", "2"]
    arguments += ["--config", str(tmp_path / "tune.yaml")]
    done = call("tune", "folder", *arguments, "--out", str(tmp_path / "out"), "--json")
    assert "warning: the photo model does not know sky" in done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["trials"] == 3
    assert -1 <= summary["best"]["reward"] <= 1
    best = (tmp_path / "out" / "best.yaml").read_text()
    assert "the model's own match score" in best
    record = json.loads((tmp_path / "out" / "tune.json").read_text())
    assert record["judge_revision"].startswith("match:")
    assert record["config"]["reward"]["judge"] == "match"


def test_a_clip_that_is_named_judges_photographs(tmp_path):
    images = str(Path(pnp_core.__file__).parent / "_photographs")
    arguments = ["--data", images, "--classes", "cat,person", "--clip", "local-dir:/nowhere"]
    done = call("tune", "folder", *arguments, "--out", str(tmp_path / "out"), code=2)
    assert "no CLIP model in '/nowhere'" in done.stderr
