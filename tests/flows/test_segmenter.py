"""Masks in three lines of Python are those of `pnp-ovss label`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pnp_core import Segmenter
from pnp_core.bundled import PACKAGE
from pnp_core.inputs.images import encode_label_map
from pnp_core.inputs.scenes.drawing import make_scene, render
from tests.flows.commands import call, summary_of

NAMES = ["cat", "person", "cup", "rocket", "traffic light"]
SHAPES = ["mug", "fish", "house", "star"]


def labelled(folder: Path, names: list[str], out: Path, *more: str) -> list[dict]:
    """The rows of a run, in the order of the pictures' names."""
    summary_of(call("label", folder, "--classes", ",".join(names), "--out", out, "--confidence", "--json", *more))
    (table,) = (out / "masks").rglob("*.parquet")
    return sorted(pq.read_table(table).to_pylist(), key=lambda row: row["key"])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for number in range(4):
        Image.fromarray(render(make_scene("test", number))[0]).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("cat", "coffee", "hopper"):
        with Image.open(PACKAGE / f"_photographs/{name}.jpg") as image:
            image.resize((image.width // 2, image.height // 2)).save(folder / f"{name}.png")
    return folder


CASES = {
    "photo": ("photographs", NAMES, [], {}),
    "tiny": ("scenes", SHAPES, ["--preset", "tiny"], {"weights": "tiny"}),
    "every class": (
        "scenes",
        SHAPES,
        ["--preset", "tiny", "--candidates", "vocabulary"],
        {"preset": "tiny", "candidates": "vocabulary"},
    ),
    "naclip": (
        "scenes",
        SHAPES,
        ["--method", "naclip", "-p", "method.clip.model=tiny-vit"],
        {"weights": "tiny-vit", "method": "naclip"},
    ),
    "car": (
        "scenes",
        SHAPES,
        ["--method", "car", "-p", "method.proposer.model=tiny-vit", "-p", "method.classifier.model=tiny-vit"],
        {"weights": "tiny-vit", "method": "car"},
    ),
}
SLOW = {"car"}


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.slow] if c in SLOW else []) for c in CASES])
def test_masks_are_those_of_a_run_byte_for_byte(case, request, tmp_path, prefect_server):
    fixture, names, options, arguments = CASES[case]
    folder = request.getfixturevalue(fixture)
    rows = labelled(folder, names, tmp_path / "out", *options)
    files = sorted(folder.iterdir())
    segmenter = Segmenter(**arguments)
    results = segmenter(files, names)
    assert any(made.labels.any() for made in results)
    for made, row in zip(results, rows, strict=True):
        assert encode_label_map(made.labels, made.palette) == row["mask"]["bytes"]
        confidence = np.asarray(Image.open(io.BytesIO(row["confidence"]["bytes"])))
        assert ((made.confidence * 255 + 0.5).astype(np.uint8) == confidence).all()
        assert list(made.asked) == [one["name"] for one in row["classes"]]
    alone = segmenter(files[0], names)
    assert encode_label_map(alone.labels, alone.palette) == rows[0]["mask"]["bytes"]
    assert {row["chosen"].split(",")[0] for row in rows} <= {"itm", "vocabulary"}


def test_a_saved_mask_is_the_png_of_a_run_and_nothing_is_written_over(scenes, tmp_path, prefect_server):
    labelled(scenes, SHAPES, tmp_path / "out", "--preset", "tiny", "--png")
    (png,) = (tmp_path / "out/png").rglob("0.png")
    made = Segmenter("tiny")(scenes / "0.png", SHAPES)
    made.save(tmp_path / "mask.png")
    assert (tmp_path / "mask.png").read_bytes() == png.read_bytes()
