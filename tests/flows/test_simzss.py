"""SimZSS from end to end with random weights: converted, evaluated, resumed, decided again from stored maps."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tests.flows.commands import call, summary_of
from tests.pnp_core.methods.simzss.released import random_state, save

SMALL = ("-p", "method.short_side=56", "-p", "method.window={side: 56, stride: 28}", "-p", "method.templates=['{}']")
EVAL = ("eval", "scenes", "--method", "simzss", "--limit", "4", "--shards", "2", "--json", *SMALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("released")
    out = place / "converted"
    found = call("convert-weights", save(place, random_state()), "--method", "simzss", "--out", out, "--json")
    assert summary_of(found)["dropped"] == {"of training alone": 4}
    assert f"-p method.checkpoint={out}" in found.stderr
    return out


@pytest.fixture(scope="module")
def evaluated(folder, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("simzss") / "scenes"
    return out, summary_of(call(*EVAL, "-p", f"method.checkpoint={folder}", "--out", out))


def test_it_runs_and_says_what_it_is(evaluated, folder):
    out, summary = evaluated
    assert summary["labelled"] == 4
    config = json.loads((out / "run.json").read_text())["config"]
    assert config["masks"]["crf"]["name"] == "off"
    rows = pq.read_table(next((out / "masks").rglob("*.parquet"))).to_pylist()
    assert {row["model"].partition("@")[0] for row in rows} == {f"simzss:{folder}"}
    assert "simzss" in (out / "report/index.html").read_text()


@pytest.mark.slow
def test_a_finished_run_is_resumed_and_another_threshold_or_scale_keeps_its_maps(evaluated, folder):
    out, _ = evaluated
    weights = ("-p", f"method.checkpoint={folder}", "--out", out)
    assert summary_of(call(*EVAL, *weights))["resumed"] == 4
    for change in (["-p", "masks.threshold=0.6"], ["-p", "method.scale=20"], ["-p", "masks.crf.name=pamr"]):
        stages = summary_of(call(*EVAL, *change, *weights))["stages"]
        assert (stages["salience"]["images_resumed"], stages["masks"]["images_resumed"]) == (4, 0)
    folder_elsewhere = folder.parent / "moved"
    folder_elsewhere.symlink_to(folder)
    moved = ("-p", f"method.checkpoint={folder_elsewhere}", "--out", out)
    assert summary_of(call(*EVAL, *moved))["resumed"] == 4, "weights are named by their content"


@pytest.mark.slow
def test_all_classes_can_be_asked_about_and_all_can_be_background(evaluated, folder, tmp_path):
    done = call(*EVAL, "-p", f"method.checkpoint={folder}", "--candidates", "vocabulary", "--out", tmp_path / "x")
    assert summary_of(done)["labelled"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "simzss has no bundled weights: get its authors' checkpoint"),
        (["-p", "method.checkpoint=/nowhere"], "no SimZSS model in '/nowhere'"),
        (["-p", "masks.threshold=1.5"], "threshold"),
        (["-p", "masks.threshold=-0.1"], "threshold"),
        (["-p", "method.short_side=100"], "multiple of 14"),
        (["-p", "method.queries={unicorn: horse}", "-p", "method.checkpoint=FOLDER"], "which is no class"),
        (["--layer", "1"], "simzss has no setting 'layer'"),
        (["--candidates", "itm"], "simzss has no match score"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments, message, folder, tmp_path):
    given = [argument.replace("FOLDER", str(folder)) for argument in arguments]
    done = call(*EVAL, *given, "--out", tmp_path / "x")
    assert done.exit_code == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say whose file it is: --backbone blip, albef or mplug, or --method simzss"),
        (["--backbone", "blip", "--method", "simzss"], "and one alone"),
        (["--method", "naclip"], "this method's weights need no conversion"),
        (["--method", "simzs"], "did you mean 'simzss'?"),
        (["--method", "simzss"], "it has 0 DINOv2 layers"),
    ],
)
def test_a_file_that_is_not_converted_is_one_line(options, message, tmp_path):
    torch.save({"text.text_projection": torch.ones(2)}, tmp_path / "other.pt")
    done = call("convert-weights", tmp_path / "other.pt", *options, "--out", tmp_path / "x")
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "x").exists()
