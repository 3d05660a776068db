"""A method that another package adds: one folder, found by its entry point, goes wherever PnP-OVSS goes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "toy_method"


def pnp_ovss(*arguments: Path | str, more: Path = TOY) -> subprocess.CompletedProcess[str]:
    """The command line in a process that has the toy's package."""
    paths = os.pathsep.join([str(TOY), str(more), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("toy") / "toy.yaml"
    file.write_text("method: toy\nmasks: {threshold: 0.3, crf: {name: 'off'}}\n")
    return file


@pytest.fixture(scope="module")
def evaluated(settings) -> tuple[Path, dict]:
    out = settings.parent / "scenes"
    done = pnp_ovss("eval", "scenes", "--limit", "12", "--config", settings, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout.splitlines()[-1])


def mask_tables(out: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((out / "masks").rglob("*.parquet"))]


def test_a_method_of_another_package_is_evaluated_resumed_and_reported(evaluated, settings):
    out, summary = evaluated
    assert summary["labelled"] == 12
    assert summary["miou"] > 0.2, "shapes on a plain ground differ from the border"
    record = json.loads((out / "run.json").read_text())
    assert record["config"]["method"] == {"name": "toy", "grid": 24}
    assert record["model"] is None
    rows = pq.read_table(next((out / "masks").rglob("*.parquet"))).to_pylist()
    assert {row["model"] for row in rows} == {"toy:none@none"}
    assert all(one["itm"] is None for row in rows for one in row["classes"]), "it has no match score"
    assert (out / "contact_sheet.png").exists()
    assert "toy" in (out / "report/index.html").read_text()
    again = pnp_ovss("eval", "scenes", "--limit", "12", "--config", settings, "--out", out, "--json")
    assert json.loads(again.stdout.splitlines()[-1])["resumed"] == 12


def test_its_scores_are_in_the_tables_under_its_own_words(evaluated, tmp_path):
    out, _ = evaluated
    done = pnp_ovss("tables", out, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "toy, 24 cells, labels" in (tmp_path / "main.csv").read_text()
    assert not (tmp_path / "ablation.csv").exists(), "it has no parts that could be left out"


def test_it_labels_pictures_where_every_class_is_a_candidate_since_it_matches_none(settings, tmp_path):
    images = ROOT / "pnp_core" / "_photographs"
    done = pnp_ovss("label", images, "--classes", "cat,cup", "--config", settings, "--out", tmp_path / "x", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["labelled"] == 6


def test_workers_of_dask_find_it_and_make_the_same_masks(evaluated, settings, tmp_path):
    pytest.importorskip("prefect_dask")
    values = settings.read_text() + "dispatch: {mode: dask, workers: 1}\n"
    (tmp_path / "dask.yaml").write_text(values)
    out = tmp_path / "dask"
    done = pnp_ovss("eval", "scenes", "--limit", "12", "--config", tmp_path / "dask.yaml", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert mask_tables(out) == mask_tables(evaluated[0])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["tune", "scenes"], "tune chooses layer and head, which only pnp-ovss has, not toy"),
        (["ablate", "scenes"], "ablate varies parts that only pnp-ovss has, not toy"),
        (["eval", "scenes", "--layer", "1"], "toy has no setting 'layer'"),
        (["eval", "scenes", "--preset", "paper"], "preset 'paper' is none of toy's"),
        (["eval", "scenes", "--candidates", "itm"], "toy has no match score"),
    ],
)
def test_what_is_pnp_ovss_alone_is_refused_for_it_in_one_line(command, message, settings, tmp_path):
    done = pnp_ovss(*command, "--config", settings, "--out", tmp_path / "x")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert message in line


def test_a_package_may_import_its_own_configuration_first(tmp_path):
    code = "import toy_method.config, pnp_core as p; assert p.EvalConfig(out='x', method='toy').method.grid == 24"
    code += "; assert p.EvalConfig(out='x').method.name == p.EvalConfig(out='x', method={}).method.name == 'pnp-ovss'"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(TOY)}, cwd=ROOT, check=True)


def test_a_package_that_is_broken_costs_nobody_else_anything_and_whoever_asks_for_it_one_line(tmp_path):
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    lines = "[pnp_ovss.methods]\nbroken = no_such_module:Config\nmisnamed = toy_method.config:ToyConfig\n"
    (info / "entry_points.txt").write_text(lines)
    assert pnp_ovss("eval", "--help", more=tmp_path).returncode == 0
    for name, message in (("broken", "cannot be loaded: No module named"), ("misnamed", "calls itself 'toy'")):
        done = pnp_ovss("eval", "scenes", "--method", name, "--out", tmp_path / "x", more=tmp_path)
        (line,) = done.stderr.strip().splitlines()
        assert message in line


def test_an_unknown_method_lists_those_there_are(tmp_path):
    (tmp_path / "x.yaml").write_text("method: {name: tiy}\n")
    done = pnp_ovss("eval", "scenes", "--config", tmp_path / "x.yaml", "--out", tmp_path / "x")
    assert "unknown method 'tiy'; did you mean 'toy'? available: pnp-ovss, toy" in done.stderr
