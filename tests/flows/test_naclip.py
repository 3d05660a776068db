"""NACLIP from end to end with the bundled CLIP: evaluated, resumed, refined again from stored maps, reported."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.flows.commands import call, summary_of

EVAL = ("eval", "scenes", "--method", "naclip", "--limit", "8", "--shards", "2", "--json")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("naclip") / "scenes"
    return out, summary_of(call(*EVAL, "--out", out))


def mask_tables(out: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((out / "masks").rglob("*.parquet"))]


def test_it_finds_the_drawn_shapes(evaluated):
    out, summary = evaluated
    assert summary["labelled"] == 8
    assert summary["miou_present"] > 0.3
    config = json.loads((out / "run.json").read_text())["config"]
    assert config["method"]["clip"]["model"] == "tiny-vit"
    assert config["masks"]["crf"]["name"] == "pamr"
    rows = pq.read_table(next((out / "masks").rglob("*.parquet"))).to_pylist()
    assert {row["model"].partition("@")[0] for row in rows} == {"naclip:tiny-vit"}
    assert (out / "contact_sheet.png").exists()
    assert "naclip" in (out / "report/index.html").read_text()


@pytest.mark.slow
def test_a_finished_run_is_resumed_and_another_threshold_or_refiner_keeps_its_maps(evaluated):
    out, _ = evaluated
    assert summary_of(call(*EVAL, "--out", out))["resumed"] == 8
    for change in (["-p", "masks.threshold=0.3"], ["-p", "masks.crf.name='off'"], ["-p", "method.scale=20"]):
        stages = summary_of(call(*EVAL, *change, "--out", out))["stages"]
        assert (stages["salience"]["images_resumed"], stages["masks"]["images_resumed"]) == (8, 0)


def test_other_queries_make_other_maps(evaluated, tmp_path):
    (tmp_path / "own.yaml").write_text("method: {name: naclip, queries: {mug: [mug, a hot mug]}}\n")
    summary = summary_of(call(*EVAL, "--config", tmp_path / "own.yaml", "--out", evaluated[0]))
    assert summary["stages"]["salience"]["images_resumed"] == 0


@pytest.mark.slow
def test_all_classes_can_be_asked_about(tmp_path):
    summary = summary_of(call(*EVAL, "--candidates", "vocabulary", "--out", tmp_path / "x"))
    assert summary["labelled"] == 8


def test_it_is_in_the_tables_under_its_name(evaluated, tmp_path):
    done = call("tables", evaluated[0], "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "NACLIP tiny-vit, 96 px, labels" in (tmp_path / "main.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "method.clip.model=tiny"], "CLIP tiny sees with a ResNet"),
        (["-p", "method.clip.model=ViT-B-61"], "unknown CLIP model 'ViT-B-61'"),
        (["-p", "method.clip.model=local-dir:/nowhere"], "no CLIP model in '/nowhere'"),
        (["-p", "method.attention=naclop"], "method.attention"),
        (["-p", "method.queries={car: []}"], "queries"),
        (["-p", "method.queries={unicorn: horse}"], "queries are given for 'unicorn', which is no class"),
        (["-p", "masks.threshold=1.5"], "threshold"),
        (["--layer", "1"], "naclip has no setting 'layer'"),
        (["--preset", "paper"], "preset 'paper' is none of naclip's"),
        (["--candidates", "itm"], "naclip has no match score"),
        (["-p", "masks.crf.dilations=[0]"], "dilations"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments, message, tmp_path):
    done = call(*EVAL, *arguments, "--out", tmp_path / "x")
    assert done.exit_code == 2, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert message in line, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
