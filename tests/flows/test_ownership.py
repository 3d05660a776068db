"""What is in an output folder and not ours stays as it is, whatever command is run; one command writes at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from pnp_core.errors import ForeignFilesError
from pnp_core.storage.files import MARK
from pnp_core.storage.ownership import FOLDER, claim, writing
from pnp_core.storage.run_folder import RunFolder
from tests.processes import somebody_writing_to

runner = CliRunner()


def digests(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def plant(folder: Path, names: list[str]) -> dict[str, str]:
    """Put a user's files where nothing is yet; gives their digests."""
    planted = {}
    for number, name in enumerate(names):
        file = folder / name
        if not any(part.is_file() for part in (file, *file.parents)) and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(f"mine {number}".encode())
            planted[name] = digests(folder)[name]
    return planted


def images(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (24, 20), (40 * number, 90, 200)).save(folder / name)
    return folder


def call(*command: str, code: int | None = 0) -> str:
    result = runner.invoke(app, list(command))
    assert code is None or result.exit_code == code, result.output
    return " ".join(result.output.split())


TINY = ("--preset", "tiny")


def label(source: Path, out: Path | str, *options: str, code: int | None = 0) -> str:
    return call("label", str(source), "--classes", "heart,star", "--out", str(out), *TINY, *options, code=code)


COMMANDS = {
    "label": lambda source, out: ["label", str(source), "--classes", "heart", "--out", str(out), *TINY],
    "label-corpus": lambda source, out: ["label-corpus", str(source), "--classes", "heart", "--out", str(out), *TINY],
    "eval": lambda source, out: ["eval", "scenes", "--limit", "2", "--out", str(out)],
    "demo": lambda source, out: ["demo", "--out", str(out)],
    "tune": lambda source, out: ["tune", "scenes", "--images", "2", "--out", str(out)],
    "ablate": lambda source, out: ["ablate", "scenes", "--limit", "2", "--out", str(out)],
    "export": lambda source, out: ["export", str(source.parent / "run"), "--to", "png", "--out", str(out)],
    "tables": lambda source, out: ["tables", str(source.parent / "evaluated"), "--out", str(out)],
}


@pytest.fixture(scope="module")
def made(evaluated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`in` with pictures, `run` that labelled them with PNG files, `evaluated`; nobody may write to them."""
    folder = tmp_path_factory.mktemp("made")
    images(folder / "in", "a.png", "b.png", "c.png")
    label(folder / "in", folder / "run", "--png", "--candidates", "vocabulary")
    (folder / "evaluated").symlink_to(evaluated)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_folder_that_is_not_ours_is_refused_before_anything_is_touched(made, tmp_path, command):
    out = tmp_path / "photos"
    plant(out, ["png/a.png", "masks/train/hand.png", "run.json", "shards/000000.tar", "export.json", "tables.md"])
    before = digests(out)
    said = call(*COMMANDS[command](made / "in", out), code=2)
    assert "is not empty ('export.json') and holds nothing that pnp-ovss has written: choose another --out" in said
    assert said.count("error") == 1
    assert digests(out) == before
    assert not (out / MARK).exists()


def test_source_in_the_folder_it_would_be_labelled_into_is_safe(tmp_path):
    images(tmp_path / "ds/png", "a.png", "b.png")
    plant(tmp_path / "ds", ["masks/train/hand.png"])
    before = digests(tmp_path)
    label(tmp_path / "ds/png", tmp_path / "ds", code=2)
    label(tmp_path / "ds/png", tmp_path / "ds/png", code=2)
    assert digests(tmp_path) == before
    label(tmp_path / "ds/png", tmp_path / "ds/png/out")  # a folder of its own may lie in the source
    label(tmp_path / "ds/png", tmp_path / "ds/png/out")
    after = digests(tmp_path)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(
    ("there", "command"), [("export", "eval"), ("run", "export"), ("run", "tables"), ("run", "label-corpus")]
)
def test_folder_of_another_kind_is_refused(made, tmp_path, there, command):
    out = tmp_path / "out"
    claim(str(out), there)
    before = digests(out)
    said = call(*COMMANDS[command](made / "in", out), code=2)
    assert " holds " in said
    assert "choose another --out" in said
    assert digests(out) == before


NAMES = st.sampled_from(
    [
        "notes.txt",
        "png/holiday.png",
        "masks/mine/a.png",
        "masks/train/000000.parquet",
        "salience/0123456789abcdef/000000.safetensors",
        "scores/mine.csv",
        "shards/000000.txt",
        "shards/000009.tar",
        "quarantine/masks/looked-at.parquet",
        "evaluations/mine/run.json",
        "subsets/mine/scores.json",
        "report/comments.html",
        "report/index.html.bak",
        "contact_sheet.jpg",
        "scores.json",
        "best.yaml",
        "tuning/notes.md",
        "batches/000001/mine.png",
        "export/mine/1.png",
        ".hidden/x",
    ]
) | st.from_regex(r"[a-z]{1,8}(/[a-z0-9.]{1,8}[a-z0-9]){0,3}", fullmatch=True)


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES, min_size=1, max_size=8, unique=True), later=st.lists(NAMES, max_size=4, unique=True))
def test_no_file_that_is_not_ours_is_changed_by_any_command(made, tmp_path_factory, names, later):
    place = tmp_path_factory.mktemp("tree")
    run, source = place / "run", place / "in"
    shutil.copytree(made / "run", run)
    shutil.copytree(made / "in", source)
    mine = plant(run, names)
    around = plant(place, [f"around/{name}" for name in names])
    (source / "b.png").unlink()
    images(source, "d.png")
    label(source, run, "--png", code=None)  # other pictures: all shards are made anew, and what was made of them goes
    mine |= plant(run, later)
    for command in (
        ["label", str(source), "--classes", "heart", "--out", str(run), *TINY],
        ["eval", "scenes", "--limit", "2", "--out", str(run)],
        ["export", str(run), "--to", "png"],
        ["export", str(run), "--to", "png", "--out", str(run)],
        ["tables", str(run), "--out", str(run / "tables")],
        ["verify", str(run)],
    ):
        call(*command, code=None)
    after = digests(place)
    assert {name: after[f"run/{name}"] for name in mine} == mine
    assert {name: after[name] for name in around} == around


@pytest.mark.parametrize("url", ["memory://owner/{}", "{}"])
def test_bucket_and_disk_are_owned_alike(tmp_path, url):
    place = RunFolder(url.format(tmp_path / "x" if "memory" not in url else tmp_path.name))
    place.put("holiday.png", b"mine")
    with pytest.raises(ForeignFilesError, match=r"is not empty \('holiday\.png'\)"):
        claim(place.url, "run")
    assert place.names() == ["holiday.png"]
    place.delete("holiday.png")
    claim(place.url, "run")
    place.put("holiday.png", b"mine")
    claim(place.url, "run")
    with pytest.raises(ForeignFilesError, match="holds a run of eval, label or tune, not an export"):
        claim(place.url, "export")
    assert place.get("holiday.png") == b"mine"


def test_label_into_a_bucket_that_holds_something_else_is_refused(made, tmp_path):
    fs = fsspec.filesystem("memory")
    fs.pipe(f"/{tmp_path.name}/png/a.png", b"mine")
    label(made / "in", f"memory://{tmp_path.name}", code=2)
    assert fs.find(f"/{tmp_path.name}") == [f"/{tmp_path.name}/png/a.png"]


KINDS = {"label": "run", "eval": "run", "tune": "run", "label-corpus": "corpus", "export": "export", "tables": "tables"}


def test_second_writer_is_refused_and_told_who_the_first_is(made, tmp_path):
    with somebody_writing_to(*(part for command, kind in KINDS.items() for part in (tmp_path / command, kind))) as pid:
        for command, kind in KINDS.items():
            out = tmp_path / command
            said = call(*COMMANDS[command](made / "in", out), code=2)
            assert f"another command is writing to '{out}' (process {pid} on {socket.gethostname()}, since 2" in said
            assert json.loads((out / FOLDER).read_text())["kind"] == kind


def test_lock_of_a_dead_process_is_taken_over_and_its_half_written_files_go(tmp_path):
    import psutil

    with somebody_writing_to(tmp_path, "run") as pid:
        (tmp_path / MARK / "half-written").mkdir(exist_ok=True)
        (tmp_path / MARK / f"half-written/{socket.gethostname()}-{pid}-0a1b2c3d").write_bytes(b"half")
        psutil.Process(pid).kill()
        psutil.Process(pid).wait()
        with writing(str(tmp_path), "run"):
            assert list((tmp_path / MARK / "half-written").iterdir()) == []
            with writing(str(tmp_path), "run"):  # inside of itself it may
                pass


def test_half_written_file_of_a_living_process_stays(tmp_path):
    claim(str(tmp_path), "run")
    with somebody_writing_to(tmp_path / "elsewhere", "run") as pid:
        file = tmp_path / MARK / f"half-written/{socket.gethostname()}-{pid}-0a1b2c3d"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"half")
        with writing(str(tmp_path), "run"):
            assert file.exists()


def test_file_given_as_output_folder_is_refused(made, tmp_path):
    (tmp_path / "x").write_text("mine")
    said = label(made / "in", tmp_path / "x", code=2)
    assert "is a file, not a folder" in said
    assert (tmp_path / "x").read_text() == "mine"
