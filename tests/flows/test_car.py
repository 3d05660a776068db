"""CaR from end to end with the bundled CLIP: evaluated, resumed, refined again from stored maps, reported."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.flows.commands import call, summary_of

EVAL = ("eval", "scenes", "--method", "car", "--limit", "6", "--shards", "2", "--json")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("car") / "scenes"
    return out, summary_of(call(*EVAL, "--out", out))


def test_drawn_shapes_are_labelled_under_its_name(evaluated):
    out, summary = evaluated
    assert summary["labelled"] == 6
    assert summary["miou_present"] > 0.1
    config = json.loads((out / "run.json").read_text())["config"]
    assert config["method"]["proposer"]["model"] == config["method"]["classifier"]["model"] == "tiny-vit"
    assert (config["masks"]["crf"]["guide"], config["masks"]["background"]) == ("wrapped", "auto")
    rows = pq.read_table(next((out / "masks").rglob("*.parquet"))).to_pylist()
    assert {row["model"].partition("@")[0] for row in rows} == {"car:tiny-vit + tiny-vit"}
    assert all(0 <= one["itm"] <= 1 for row in rows for one in row["classes"])
    assert "car" in (out / "report/index.html").read_text()


@pytest.mark.slow
def test_a_finished_run_is_resumed_and_another_refiner_or_guide_keeps_its_maps(evaluated):
    out, _ = evaluated
    assert summary_of(call(*EVAL, "--out", out))["resumed"] == 6
    for change in (["-p", "masks.crf.guide=image"], ["-p", "masks.crf.name='off'"], ["-p", "masks.threshold=0.3"]):
        stages = summary_of(call(*EVAL, *change, "--out", out))["stages"]
        assert (stages["salience"]["images_resumed"], stages["masks"]["images_resumed"]) == (6, 0)


@pytest.mark.slow
def test_another_threshold_of_its_own_makes_other_maps(evaluated):
    stages = summary_of(call(*EVAL, "-p", "method.confidence_threshold=0.5", "--out", evaluated[0]))["stages"]
    assert stages["salience"]["images_resumed"] == 0


@pytest.mark.slow
def test_stuff_and_all_classes_can_be_asked_about(tmp_path):
    (tmp_path / "own.yaml").write_text("method: {name: car, stuff: [tree, cactus]}\n")
    options = ("--config", tmp_path / "own.yaml", "--candidates", "vocabulary", "--out", tmp_path / "x")
    assert summary_of(call(*EVAL, *options))["labelled"] == 6


def test_it_is_in_the_tables_under_its_name(evaluated, tmp_path):
    done = call("tables", evaluated[0], "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "CaR tiny-vit + tiny-vit, at most" in (tmp_path / "main.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "method.proposer.model=tiny"], "CLIP tiny sees with a ResNet"),
        (["-p", "method.classifier.model=RN50"], "CLIP RN50 sees with a ResNet"),
        (["-p", "method.classifier.model=local-dir:/nowhere"], "no CLIP model in '/nowhere'"),
        (["-p", "method.mask_threshold=1.5"], "mask_threshold"),
        (["-p", "method.prompts=[blurred]"], "prompts"),
        (["-p", "method.names={unicorn: horse}"], "names are given for 'unicorn', which is no class"),
        (["-p", "method.names={car: ''}"], "names"),
        (["-p", "method.stuff=[sky]"], "stuff is 'sky', which is no class"),
        (["-p", "masks.crf.guide=none"], "guide"),
        (["--layer", "1"], "car has no setting 'layer'"),
        (["--preset", "paper"], "preset 'paper' is none of car's"),
        (["--candidates", "itm"], "car has no match score"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments, message, tmp_path):
    done = call(*EVAL, *arguments, "--out", tmp_path / "x")
    assert done.exit_code == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert message in line
