"""Names, lists and links that somebody else made: nothing but pictures is kept, and nothing acts on who looks."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.sorting import FlowRunSort
from typer.testing import CliRunner

from flows.cli import app
from pnp_core.report.page import PAGE

SECRET = b"swordfish-4711 is the password of the whole machine\n"
TINY = ("--preset", "tiny")
TEXT = "not a picture in a known format: by its first bytes it is text"
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def image(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def run(*arguments: str) -> tuple[dict, str]:
    """The JSON object of a command, and all that it said."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1]), result.output


def quarantined(out: Path) -> dict[str, str]:
    rows = [row for file in out.rglob("quarantine/**/*.parquet") for row in pq.read_table(file).to_pylist()]
    return {row["source"]: row["reason"] for row in rows}


def files_with(secret: bytes, folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and secret in file.read_bytes()]


def test_files_that_a_list_or_a_table_names_are_not_kept_unless_they_are_pictures(tmp_path):
    secret, out = tmp_path / "secret", tmp_path / "out"
    secret.write_bytes(SECRET)
    (tmp_path / "a.png").write_bytes(image(1))
    lines = ["a.png", "/etc/passwd", "file:///etc/passwd", str(secret), f"file://{secret}"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    rows = [{"bytes": None, "path": line} for line in lines] + [{"bytes": SECRET, "path": None}]
    pq.write_table(pa.table({"image": rows}), tmp_path / "table.parquet")
    for source, refused in (("list.txt", 4), ("table.parquet", 5)):
        summary, _ = run("label", str(tmp_path / source), "--classes", "heart,star", "--out", str(out / source), *TINY)
        assert (summary["labelled"], summary["quarantined"]) == (1, refused)
        assert summary["reasons"] == {TEXT: refused}
        assert len(quarantined(out / source)) == refused
    assert set(quarantined(out / "list.txt")) == set(lines[1:])
    assert files_with(SECRET[:14], out) == []
    assert files_with(Path("/etc/passwd").read_bytes()[:20], out) == []
    assert files_with(image(1), out), "pictures are kept as they are, which the search must find"


def test_links_in_a_watched_folder_lead_nowhere_else(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name, data in (("in/a.png", image(1)), ("in/text.png", b"words"), ("secret.png", image(7))):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "secret").write_bytes(SECRET)
    for name in ("secret", "secret.png"):
        (folder / f"link to {name}").symlink_to(tmp_path / name)
    arguments = [
        "label-corpus",
        str(folder),
        "--classes",
        "heart,star",
        "--out",
        str(out),
        "--settle",
        "0",
        *TINY,
    ]
    summary, said = run(*arguments)
    assert (summary["labelled"], summary["quarantined"], summary["links"]) == (1, 1, 2)
    assert "warning: 2 links that leave the folder passed over (--follow-links" in said
    assert files_with(image(7), out) == files_with(SECRET[:14], out) == []
    summary, _ = run(*arguments, "--follow-links")
    assert (summary["labelled"], summary["quarantined"], summary["links"]) == (1, 1, 0)
    assert quarantined(out) == {"text.png": TEXT, "link to secret": TEXT}
    assert len(files_with(image(7), out)) == 1
    assert files_with(SECRET[:14], out) == []


@pytest.fixture
def odd(tmp_path) -> Path:
    """A folder in whose names everything is that acts on a terminal."""
    folder = tmp_path / "in\x1b]0;owned\x07\u202e"
    folder.mkdir()
    (folder / "a\x1b[2J\nwarning: all is lost.png").write_bytes(image(1))
    (folder / "b\x9b31m\u2066.png").write_bytes(b"words")
    (folder / os.fsdecode(b"caf\xe9\x1b.png")).write_bytes(image(2)[:100])
    (folder / "[red]猫\u200d.t\x1bt").write_bytes(b"words")
    return folder


def artifacts() -> Iterator[str]:
    """What is to be read in Prefect of the newest flow run, its name included."""
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(limit=1, sort=FlowRunSort.START_TIME_DESC)
        yield run.name
        own = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        for artifact in client.read_artifacts(artifact_filter=own):
            yield str(artifact.data)
            yield artifact.description or ""


def test_odd_names_act_nowhere(odd, tmp_path, prefect_server, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    out = tmp_path / "out\x1b[5m"
    classes = ["--classes", "heart,st\x1b[31mar", "--candidates", "vocabulary"]
    summary, said = run("label", str(odd), *classes, "--out", str(out), *TINY)
    assert (summary["labelled"], summary["quarantined"]) == (1, 2)
    assert summary["out"] == str(out), "the value is what it was"
    assert CONTROLS.search(said) is None
    assert r"out\x1b[5m/quarantine/" in said
    assert "1 files passed over because they are no pictures (.t\\x1bt x1)" in said
    page = (out / PAGE).read_text(encoding="utf-8")
    assert CONTROLS.search(page) is None
    assert r"a\x1b[2J\x0awarning: all is lost.png" in page.replace("\\\\", "\\")
    told = list(artifacts())
    assert told[0].startswith("label-")
    assert r"in\x1b]0;owned\x07\u202e" in told[0]
    assert len(told) > 4
    assert all(CONTROLS.search(text) is None for text in told)
    assert any(r"st\\x1b\[31mar" in text for text in told)
    assert set(quarantined(out)) == {"b\x9b31m\u2066.png", "caf\\xe9\x1b.png"}, "tables keep names as they are"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["eval", "v\x1b[2Joc", "--out", "o"], r"unknown dataset 'v\x1b[2Joc'"),
        (["label", "/gone\x9b\u202e", "--classes", "a,b", "--out", "o"], r"source '/gone\x9b\u202e' does not exist"),
        (["lab\x1bel"], r"No such command 'lab\x1bel'"),
        (["label", "x", "--ou\x1bt"], r"No such option: --ou\x1bt"),
        (["export", "x", "--to", "p\x1bng"], r"unknown format 'p\x1bng'"),
        (["export", "gone\x1b", "--to", "png"], r"gone\x1b"),
        (["tables", "gone\x1b", "--out", "o\x1b"], r"gone\x1b"),
    ],
)
def test_what_was_typed_wrong_is_said_without_acting(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code in (1, 2)
    assert CONTROLS.search(result.output) is None
    assert says in result.output


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_a_file_of_candidates_holds_is_shown_without_acting(tmp_path, options):
    odd = {"p\x1b[2J\u202e": {"classes": ["cat", "\x9b31mdog"]}, "q\n": "[{'\x1b]0;x\x07': 1}]"}
    (tmp_path / "c.json").write_text(json.dumps(odd))
    result = CliRunner().invoke(app, ["candidates", str(tmp_path / "c.json"), "--dataset", "voc21", *options])
    assert CONTROLS.search(result.output) is None
    assert r"p\x1b[2J\u202e" in result.output
    if options:
        keys = [key for key, _ in json.loads(result.stdout.splitlines()[-1])["repairs"]]
        assert keys == list(odd)
