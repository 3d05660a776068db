"""run.json and scores.json are read through one model: a foreign, older or damaged file is one clear line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.cli.watching import show_result
from flows.pipelines.evaluation import evaluate
from pnp_core.config import EvalConfig
from pnp_core.errors import CorruptRunError
from pnp_core.runs.record import read_record
from pnp_core.storage.files import MARK
from pnp_core.storage.run_folder import RunFolder

runner = CliRunner()


def without(*path: str) -> Callable[[bytes], bytes]:
    """The record without one of its keys."""

    def change(data: bytes) -> bytes:
        record = json.loads(data)
        part = record
        for key in path[:-1]:
            part = part[key]
        del part[path[-1]]
        return json.dumps(record).encode()

    return change


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "zeroed": (lambda data: bytes(len(data)), "Invalid JSON"),
    "cut short": (lambda data: data[:200], "Invalid JSON"),
    "not UTF-8": (lambda data: b"\xff\xfe" + data, "Invalid JSON"),
    "a list": (lambda data: b"[1,2]", "should be an object"),
    "of somebody else": (lambda data: b'{"name": "my experiment"}', "it lacks weights_revision, model, "),
    "older": (without("summary", "labelled"), "it lacks summary.labelled"),
    "without configuration": (without("config"), "it lacks config"),
}


@pytest.fixture
def old(evaluated, tmp_path) -> Path:
    """A run whose files nobody has digests of, so that only their content tells."""
    folder = Path(shutil.copytree(evaluated, tmp_path / "run"))
    shutil.rmtree(folder / MARK)
    return folder


def damage(folder: Path, how: str, names: str = "run.json") -> str:
    change, says = DAMAGES[how]
    for file in folder.rglob(names):
        file.write_bytes(change(file.read_bytes()))
    return says


@pytest.mark.parametrize("how", DAMAGES)
def test_record_that_is_none_is_one_clear_line_in_every_command(old, tmp_path, how):
    says = damage(old, how)
    for command in (
        ["export", str(old), "--to", "png", "--out", str(tmp_path / "export")],
        ["tables", str(old), "--out", str(tmp_path / "tables")],
    ):
        result = runner.invoke(app, command)
        said = " ".join(result.output.split())
        assert result.exit_code == 1, said
        assert "run.json' is damaged or was made by another version (" in said
        assert says in said
        assert "Traceback" not in said
    with pytest.raises(CorruptRunError, match=r"run\.json' is damaged"):
        show_result(str(old))


def test_missing_key_is_told_without_assertions_too(old):
    damage(old, "older")
    command = [sys.executable, "-O", "-m", "flows.cli", "tables", str(old), "--out", str(old.parent / "tables")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "it lacks summary.labelled" in done.stderr


def test_same_run_writes_a_damaged_record_anew(old):
    damage(old, "zeroed")
    values = {"limit": 8, "shards": 2, "salience": {"dropout": {"iterations": 2}}, "masks": {"confidence": True}}
    summary = evaluate(EvalConfig.model_validate({"out": str(old), **values}))
    assert summary.resumed == 8
    record = read_record(RunFolder(str(old)))
    assert record
    assert (record.summary.labelled, record.fingerprints.masks) == (8, Path(summary.masks).name)


def test_damaged_scores_are_one_clear_line(old, tmp_path):
    damage(old, "a list", "scores.json")
    result = runner.invoke(app, ["tables", str(old), "--out", str(tmp_path / "tables")])
    assert result.exit_code == 1
    assert "scores.json' is damaged or was made by another version" in " ".join(result.output.split())


def test_keys_of_a_newer_version_are_passed_over(old):
    file = old / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "mood": "good"}))
    record = read_record(RunFolder(str(old)))
    assert record
    assert record.summary.images == 8
