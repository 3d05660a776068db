"""`ablate` runs what tables need and is missing; `tables`, `view` and `export` as users call them."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.pipelines.evaluation import evaluate
from flows.pipelines.tables import ablate, make_tables
from flows.viewing import report_server
from pnp_core.config import AblateConfig, TablesConfig
from pnp_core.errors import CorruptRunError, OutputError, UsageError
from pnp_core.storage.run_folder import RunFolder
from pnp_core.tables.missing import missing_settings

runner = CliRunner()


@pytest.fixture
def copied(evaluated, tmp_path) -> Path:
    """A run folder of eight scenes that may be written to."""
    shutil.copytree(evaluated, tmp_path / "run", copy_function=shutil.copy2)
    return tmp_path / "run"


def ablate_config(run: Path, *tables: str) -> AblateConfig:
    values = json.loads((run / "run.json").read_text())["config"]
    return AblateConfig.model_validate({**values, "out": str(run), "tables": tables})


def salience_of(run: Path) -> dict[str, int]:
    """Inodes of the completion records of salience: another one is another computation."""
    return {str(f.relative_to(run)): f.stat().st_ino for f in sorted((run / "salience").glob("*/*.done.json"))}


def test_ablate_runs_what_is_missing_and_nothing_else(copied, tmp_path):
    before, config = salience_of(copied), ablate_config(copied, "ablation", "iterations")
    needed = [place for place, _ in missing_settings(config)]
    assert needed == [
        "method attention",
        "method attention x gradient (GradCAM)",
        "method with Salience DropOut",
        "method with blur",
        "passes 1",
    ]
    summary = ablate(config)
    assert list(summary.made) == needed
    after = salience_of(copied)
    assert before.items() < after.items(), "salience that was there was computed again"
    assert len({Path(name).parent for name in after}) == 2, "the ablation needs the model for the attention alone"
    assert missing_settings(config) == []
    assert ablate(config).made == {}
    assert salience_of(copied) == after
    make_tables(TablesConfig(runs=(str(copied),), out=str(tmp_path / "tables")))
    rows = list(csv.DictReader((tmp_path / "tables/ablation.csv").open(encoding="utf-8")))
    assert {row["row"].split()[-1]: float(row["value"]) for row in rows} == {
        "attention": summary.made["method attention"],
        "(GradCAM)": summary.made["method attention x gradient (GradCAM)"],
        "DropOut": summary.made["method with Salience DropOut"],
        "blur": summary.made["method with blur"],
        "CRF": json.loads((copied / "scores.json").read_text())["miou"],
    }


def test_run_folder_stands_for_its_own_setting_after_an_ablation(copied):
    own = (copied / "scores.json").read_bytes(), json.loads((copied / "run.json").read_text())["fingerprints"]
    page = (copied / "report/index.html").read_bytes()
    config = ablate_config(copied, "iterations")
    ablate(config)
    assert (copied / "scores.json").read_bytes() == own[0]
    assert json.loads((copied / "run.json").read_text())["fingerprints"] == own[1]
    assert (copied / "report/index.html").read_bytes() == page


def test_setting_that_a_study_made_becomes_the_runs_own_when_it_is_the_base(copied):
    ablate(ablate_config(copied, "iterations"))
    config = AblateConfig.model_validate({**ablate_config(copied).model_dump(), "masks": {"passes": 1}, "tables": []})
    assert [place for place, _ in missing_settings(config)] == ["the base setting"]
    ablate(config)
    assert json.loads((copied / "run.json").read_text())["config"]["method"]["passes"] == 1
    assert missing_settings(config) == []


def test_other_pictures_are_refused_before_anything_is_lost(copied):
    fewer = ablate_config(copied, "iterations").model_copy(update={"limit": 4})
    with pytest.raises(UsageError, match=r"holds a run with limit 8, not 4: give the same options"):
        missing_settings(fewer)


def test_run_that_computes_nothing_keeps_what_made_its_scores(copied):
    (record,) = copied.glob("evaluations/*/run.json")
    before = json.loads(record.read_text())
    before |= {"commit": "earlier", "device": "a GPU", "rates": {**before["rates"], "salience": 123.0}}
    RunFolder(str(copied)).write_json(str(record.relative_to(copied)), before)
    evaluate(ablate_config(copied).base)
    after = json.loads(record.read_text())
    assert (after["commit"], after["device"], after["rates"]["salience"]) == ("earlier", "a GPU", 123.0)


def test_class_subsets_have_folders_of_their_own(copied, tmp_path):
    ablate(ablate_config(copied, "subsets"))
    assert sorted(folder.name for folder in (copied / "subsets").iterdir()) == ["plants", "vehicles"]
    make_tables(TablesConfig(runs=(str(copied),), out=str(tmp_path / "tables")))
    rows = {row["row"]: row for row in csv.DictReader((tmp_path / "tables/subsets.csv").open(encoding="utf-8"))}
    assert set(rows) == {"plants", "vehicles"}
    assert 0 < int(rows["plants"]["images"]) <= 8


def test_commands_say_what_is_missing_and_make_tables(evaluated, tmp_path):
    (tmp_path / "best.yaml").write_text(json.dumps(json.loads((evaluated / "run.json").read_text())["config"]))
    options = ["scenes", "--config", str(tmp_path / "best.yaml"), "--out", str(evaluated)]
    result = runner.invoke(app, ["ablate", *options, "--tables", "thresholds", "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    missing = json.loads(result.stdout)["missing"]
    assert len(missing) == 7 * 4 - 1
    assert "threshold 0.45, blur 0.05" in missing
    result = runner.invoke(app, ["tables", str(evaluated), "--out", str(tmp_path / "tables"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["tables"] == ["main", "speed"]
    assert (tmp_path / "tables/tables.md").read_text().startswith("# Benchmark tables")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tables", "nowhere", "--out", "x"], "'nowhere' does not exist"),
        (["ablate", "scenes", "--out", "x", "--tables", "abl"], "configuration: tables.0"),
        (["view", "nowhere"], "'nowhere' has no report"),
        (["export", "nowhere", "--to", "png", "--out", "x"], "'nowhere' holds no finished run"),
        (["export", "nowhere", "--to", "tfrecord"], "unknown format 'tfrecord'; available: coco-rle, cvat, hf, "),
    ],
)
def test_what_cannot_be_is_one_clear_line(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, arguments)
    assert result.exit_code in (1, 2), result.output
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def answer(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


def test_view_serves_the_page_and_its_pictures_and_nothing_else_of_the_run(evaluated):
    server = report_server(str(evaluated))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        page = (evaluated / "report/index.html").read_bytes()
        assert answer(f"{url}/") == answer(f"{url}/index.html") == (200, page)
        (photo, *_) = (evaluated / "report/pictures").glob("*/*.jpg")
        name = photo.relative_to(evaluated / "report").as_posix()
        assert answer(f"{url}/{name}") == (200, photo.read_bytes())
        mask = name.replace(".jpg", ".png")
        assert answer(f"{url}/{mask}") == (200, photo.with_suffix(".png").read_bytes())
        others = (
            "/pictures/",
            f"/{name}.bak",
            "/pictures/../../run.json",
            f"/{name.rsplit('/', 1)[0]}/../../../run.json",
        )
        for path in ("/run.json", "/../run.json", "/%2e%2e/run.json", "/report/index.html", *others):
            assert answer(url + path)[0] == 404
        assert answer(f"{url}/", Host="evil.example")[0] == 404
        with pytest.raises(OutputError, match=f"cannot serve on port {server.server_port}"):
            report_server(str(evaluated), server.server_port)
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(CorruptRunError, match="has no report"):
        report_server(str(evaluated / "masks"))


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_view_command_serves_until_it_is_told_to_end(evaluated, sign, code):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "flows.cli", "view", str(evaluated), "--port", str(port), "--no-open"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        url = re.match(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert url
        assert answer(url[0])[0] == 200
    finally:
        process.send_signal(sign)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (code, "stopped: the page is served no longer")


def test_tables_are_made_of_as_many_runs_as_are_named(copied, tmp_path):
    other = tmp_path / "other, of the same"
    shutil.copytree(copied, other)
    result = runner.invoke(app, ["tables", str(copied), str(other), "--out", str(tmp_path / "both")])
    assert result.exit_code == 0, result.stderr
    text = (tmp_path / "both/main.csv").read_text()
    assert text.count("scenes") >= 2
