"""A method that another package adds: one folder, found by its entry point, goes wherever PnP-OVSS goes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pnp_core.methods import METHODS
from tests.flows.commands import call, summary_of

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "toy_method"
EVAL = ("eval", "scenes", "--limit", "8", "--shards", "2", "--json")


@pytest.fixture(scope="module")
def toy() -> Iterator[None]:
    """Its package is installed: in a folder that packages are looked for in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOY)
        METHODS.__dict__.pop("_places", None)
        yield
    METHODS.__dict__.pop("_places", None)


@pytest.fixture(scope="module")
def settings(tmp_path_factory, toy) -> Path:
    file = tmp_path_factory.mktemp("toy") / "toy.yaml"
    file.write_text("method: toy\nmasks: {threshold: 0.3, crf: {name: 'off'}}\n")
    return file


@pytest.fixture(scope="module")
def evaluated(settings) -> tuple[Path, dict]:
    out = settings.parent / "scenes"
    return out, summary_of(call(*EVAL, "--config", settings, "--out", out))


def mask_tables(out: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((out / "masks").rglob("*.parquet"))]


def test_a_method_of_another_package_is_evaluated_resumed_and_reported(evaluated, settings):
    out, summary = evaluated
    assert summary["labelled"] == 8
    assert summary["miou"] > 0.15, "shapes on a plain ground differ from the border"
    record = json.loads((out / "run.json").read_text())
    assert record["config"]["method"] == {"name": "toy", "grid": 24}
    assert record["model"] is None
    rows = pq.read_table(next((out / "masks").rglob("*.parquet"))).to_pylist()
    assert {row["model"] for row in rows} == {"toy:none@none"}
    assert all(one["itm"] is None for row in rows for one in row["classes"]), "it has no match score"
    assert (out / "contact_sheet.png").exists()
    assert "toy" in (out / "report/index.html").read_text()
    assert summary_of(call(*EVAL, "--config", settings, "--out", out))["resumed"] == 8


def test_its_scores_are_in_the_tables_under_its_own_words(evaluated, tmp_path):
    assert call("tables", evaluated[0], "--out", tmp_path).exit_code == 0
    assert "toy, 24 cells, labels" in (tmp_path / "main.csv").read_text()
    assert not (tmp_path / "ablation.csv").exists(), "it has no parts that could be left out"


def test_it_labels_pictures_where_every_class_is_a_candidate_since_it_matches_none(settings, tmp_path):
    options = ("--classes", "cat,cup", "--config", settings, "--out", tmp_path / "x", "--json")
    assert summary_of(call("label", ROOT / "pnp_core" / "_photographs", *options))["labelled"] == 6


@pytest.mark.ops
def test_workers_of_dask_find_it_and_make_the_same_masks(evaluated, settings, tmp_path):
    pytest.importorskip("prefect_dask")
    (tmp_path / "dask.yaml").write_text(settings.read_text() + "dispatch: {mode: dask, workers: 1}\n")
    command = [*EVAL, "--config", tmp_path / "dask.yaml", "--out", tmp_path / "dask"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOY), str(ROOT)])}
    subprocess.run([sys.executable, "-m", "flows.cli", *map(str, command)], env=environment, check=True)
    assert mask_tables(tmp_path / "dask") == mask_tables(evaluated[0])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["tune", "scenes", "-p", "space.layers=[0]"], "toy has no layers to choose from: leave out space.layers"),
        (["tune", "scenes", "-p", "space.blurs=[0.1]"], "toy does not search masks.blur: leave out space.blurs"),
        (["tune", "scenes", "--judge", "match"], "toy has no match score to judge by: leave out --judge match"),
        (["ablate", "scenes"], "ablate varies parts that only pnp-ovss has, not toy"),
        (["eval", "scenes", "--layer", "1"], "toy has no setting 'layer'"),
        (["eval", "scenes", "--preset", "paper"], "preset 'paper' is none of toy's"),
        (["eval", "scenes", "--candidates", "itm"], "toy has no match score"),
    ],
)
def test_what_is_pnp_ovss_alone_is_refused_for_it_in_one_line(command, message, settings, tmp_path):
    done = call(*command, "--config", settings, "--out", tmp_path / "x")
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    assert message in line


def test_a_package_may_import_its_own_configuration_first():
    code = "import toy_method.config, pnp_core as p; assert p.EvalConfig(out='x', method='toy').method.grid == 24"
    code += "; assert p.EvalConfig(out='x').method.name == p.EvalConfig(out='x', method={}).method.name == 'pnp-ovss'"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(TOY)}, cwd=ROOT, check=True)


def test_a_package_that_is_broken_costs_nobody_else_anything_and_whoever_asks_for_it_one_line(
    toy, tmp_path, monkeypatch
):
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    lines = "[pnp_ovss.methods]\nbroken = no_such_module:Config\nmisnamed = toy_method.config:ToyConfig\n"
    (info / "entry_points.txt").write_text(lines)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(METHODS.__dict__, "_places", raising=False)
    assert {"toy", "broken", "misnamed"} < set(METHODS)
    assert call("eval", "--help").exit_code == 0
    for name, message in (("broken", "cannot be loaded: No module named"), ("misnamed", "calls itself 'toy'")):
        done = call("eval", "scenes", "--method", name, "--out", tmp_path / "x")
        (line,) = done.stderr.strip().splitlines()
        assert message in line
    METHODS.__dict__.pop("_places")


def test_an_unknown_method_lists_those_there_are(toy, tmp_path):
    done = call("eval", "scenes", "--method", "tiy", "--out", tmp_path / "x")
    there = "car, classify, ensemble, naclip, pnp-ovss, simzss, toy"
    assert f"unknown method 'tiy'; did you mean 'toy'? available: {there}" in done.stderr
