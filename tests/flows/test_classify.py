"""Classify from end to end: another run's proposals or a folder's, resumed, put together, with prompts, bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import Result
from PIL import Image
from safetensors.torch import save_file

from pnp_core.inputs.images import decode_label_map
from tests.artifacts import artifacts
from tests.flows.commands import call, summary_of

SCENES = ("--limit", "6", "--shards", "2", "--json")


def classify(proposals: Path, out: Path, *more: Path | str) -> Result:
    return call(
        "eval", "scenes", *SCENES, "--method", "classify", "-p", f"method.proposals={proposals}", "--out", out, *more
    )


def refused(done: Result, message: str) -> None:
    assert done.exit_code == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert message in line


def masks_of(out: Path) -> dict[str, np.ndarray]:
    folder = out / "masks" / json.loads((out / "run.json").read_text())["fingerprints"]["masks"]
    rows = [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    return {row["key"]: decode_label_map(row["mask"]["bytes"]) for row in rows}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A run of PnP-OVSS of six scenes."""
    out = tmp_path_factory.mktemp("runs") / "plain"
    summary_of(call("eval", "scenes", *SCENES, "--out", out))
    return out


@pytest.fixture(scope="module")
def named(plain) -> tuple[Path, dict]:
    out = plain.parent / "named"
    return out, summary_of(classify(plain, out))


@pytest.fixture
def folder(plain, tmp_path) -> Path:
    """The masks of the run, a PNG for each class of a picture."""
    for key, labels in masks_of(plain).items():
        (tmp_path / "proposals" / key).mkdir(parents=True)
        for label in np.unique(labels[labels > 0]):
            Image.fromarray((labels == label).astype(np.uint8) * 255).save(tmp_path / f"proposals/{key}/{label}.png")
    return tmp_path / "proposals"


def test_borders_are_those_of_the_proposals_and_the_run_is_recorded(plain, named):
    out, summary = named
    assert summary["labelled"] == 6
    assert summary["miou_present"] > 0.3
    for key, labels in masks_of(out).items():
        assert ((labels > 0) <= (masks_of(plain)[key] > 0)).all()
    record = json.loads((out / "run.json").read_text())
    assert [(run["run"], run["method"]) for run in record["runs"]] == [(str(plain), "pnp-ovss")]
    assert record["config"]["method"]["clip"]["model"] == "tiny"
    assert (out / "contact_sheet.png").exists()


def test_a_finished_run_is_resumed_a_threshold_keeps_the_maps_and_a_lost_shard_is_the_same(plain, named, tmp_path):
    shutil.copytree(named[0], tmp_path / "x")
    assert summary_of(classify(plain, tmp_path / "x"))["resumed"] == 6
    for stage in ("salience", "masks"):
        for file in (tmp_path / "x" / stage).glob("*/000001.*"):
            file.unlink()
    stages = summary_of(classify(plain, tmp_path / "x"))["stages"]
    assert stages["salience"]["shards_resumed"] == 1
    assert artifacts(tmp_path / "x") == artifacts(named[0])
    stages = summary_of(classify(plain, tmp_path / "x", "-p", "masks.threshold=0.5"))["stages"]
    assert (stages["salience"]["images_resumed"], stages["masks"]["images_resumed"]) == (6, 0)


@pytest.mark.slow
def test_proposals_that_moved_are_the_same_and_others_make_other_maps(plain, named, tmp_path):
    shutil.copytree(named[0], tmp_path / "x")
    shutil.copytree(plain, tmp_path / "moved")
    assert summary_of(classify(tmp_path / "moved", tmp_path / "x"))["resumed"] == 6
    summary_of(call("eval", "scenes", *SCENES, "-p", "masks.threshold=0.4", "--out", tmp_path / "moved"))
    assert summary_of(classify(tmp_path / "moved", tmp_path / "x"))["resumed"] == 0


@pytest.mark.slow
def test_a_folder_of_masks_and_a_picture_that_it_lacks(plain, folder, tmp_path):
    keys = sorted(masks_of(plain))
    shutil.rmtree(folder / keys[0])
    summary = summary_of(classify(folder, tmp_path / "x", "--candidates", "vocabulary"))
    assert (summary["labelled"], summary["quarantined"]) == (5, 1)
    assert f"no proposals: '{folder / keys[0]}' holds no PNG" in next(iter(summary["reasons"]))
    assert set(masks_of(tmp_path / "x")) == set(keys[1:])
    (folder / keys[1] / "more.png").write_bytes(b"no picture")
    Image.new("L", (3, 3), 1).save(folder / keys[2] / "more.png")
    Image.new("RGB", (192, 192)).save(folder / keys[3] / "more.png")
    summary = summary_of(classify(folder, tmp_path / "x"))
    assert (summary["labelled"], summary["quarantined"]) == (2, 4)
    said = " ".join(summary["reasons"])
    assert "is no mask: " in said
    assert "is of another picture of that key, 3x3 pixels" in said
    assert "it has colours" in said


@pytest.mark.slow
def test_pictures_that_the_run_does_not_know_are_quarantined(named, tmp_path):
    summary_of(call("eval", "scenes", "--limit", "4", "--json", "--out", tmp_path / "few"))
    summary = summary_of(classify(tmp_path / "few", tmp_path / "x"))
    assert (summary["labelled"], summary["quarantined"]) == (4, 2)
    assert list(summary["reasons"]) == [f"no proposals: run '{tmp_path / 'few'}' does not know it"]


@pytest.mark.slow
def test_it_can_be_in_an_ensemble(plain, named, tmp_path):
    runs = [part for run in (named[0], plain) for part in ("--run", run)]
    summary = summary_of(call("eval", "scenes", *SCENES, *runs, "--weights", "1,0", "--out", tmp_path / "x"))
    assert summary["labelled"] == 6
    off = ("-p", "masks.crf.name='off'")
    summary_of(call("eval", "scenes", *SCENES, "--run", named[0], *off, "--out", tmp_path / "y"))
    for key, labels in masks_of(tmp_path / "y").items():
        assert (labels == masks_of(named[0])[key]).all()


def test_prompts_make_other_results_and_are_named(plain, named, tmp_path):
    save_file({"text.0": torch.randn(2, 128)}, tmp_path / "own.safetensors", metadata={"base_model": "tiny"})
    shutil.copytree(named[0], tmp_path / "x")
    prompts = ("-p", f"method.clip.prompts={tmp_path / 'own.safetensors'}")
    assert summary_of(classify(plain, tmp_path / "x", *prompts))["resumed"] == 0
    record = json.loads((tmp_path / "x/run.json").read_text())
    assert record["weights_revision"] != json.loads((named[0] / "run.json").read_text())["weights_revision"]
    row = pq.read_table(next((tmp_path / "x/masks").rglob("*.parquet"))).to_pylist()
    assert row


@pytest.mark.slow
def test_prompts_in_candidates_make_other_maps(plain, tmp_path):
    save_file({"text.0": torch.randn(2, 128)}, tmp_path / "own.safetensors", metadata={"base_model": "tiny"})
    base = ("eval", "scenes", *SCENES, "--candidates", "clip", "--out", tmp_path / "x")
    assert summary_of(call(*base))["resumed"] == 0
    prompts = f"salience.candidates.clip.prompts={tmp_path / 'own.safetensors'}"
    assert summary_of(call(*base, "-p", prompts))["resumed"] == 0
    assert summary_of(call(*base))["resumed"] == 6


def test_what_does_not_fit_is_refused_in_one_line(plain, tmp_path):
    out = tmp_path / "x"
    (tmp_path / "empty").mkdir()
    refused(call("eval", "scenes", *SCENES, "--method", "classify", "--out", out), "classify needs proposals")
    refused(classify(tmp_path / "nothing", out), "do not exist")
    refused(classify(tmp_path / "empty", out), "hold no finished run (run.json) and no masks (KEY/*.png)")
    refused(classify(plain, plain), "is where the masks are to go: choose another --out")
    refused(classify(plain, out, "-p", "masks.blur=0.1"), "classify does not blur")
    refused(classify(plain, out, "--candidates", "itm"), "classify has no match score")
    refused(classify(plain, out, "-p", "method.expand=0.5"), "greater than or equal to 1")
    refused(classify(plain, out, "-p", "method.clip.prompts=/nowhere"), "prompts '/nowhere' cannot be read")
    shutil.copytree(plain, tmp_path / "other")
    next((tmp_path / "other/masks").glob("*/000001.done.json")).unlink()
    refused(classify(tmp_path / "other", out), "is not finished: shard 000001 has no masks")
    photographs = call("label", Path(__file__).parents[2] / "pnp_core/_photographs", "--classes", "car", "--method",
                       "classify", "-p", f"method.proposals={plain}", "--out", out)  # fmt: skip
    refused(photographs, "is of scenes, not of folder: name a run of the same pictures")
