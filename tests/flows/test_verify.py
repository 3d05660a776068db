"""`verify` says of every file whether it is whole; folders of versions before are known and taken over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.pipelines.evaluation import evaluate
from pnp_core.config import EvalConfig
from pnp_core.data import RunSummary
from pnp_core.errors import DamagedError
from pnp_core.storage.files import MARK
from pnp_core.storage.ownership import kind_of
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.seals import json_bytes, sha256
from tests.artifacts import artifacts

runner = CliRunner()


def verify(folder: Path, code: int) -> dict:
    result = runner.invoke(app, ["verify", str(folder), "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def copied(evaluated, tmp_path) -> Path:
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


def config_of(folder: Path) -> EvalConfig:
    """As the fixture `evaluated` has it."""
    values = {"limit": 8, "shards": 2, "salience": {"dropout": {"iterations": 2}}, "masks": {"confidence": True}}
    return EvalConfig.model_validate({"out": str(folder), **values})


def test_finished_run_is_whole_and_every_file_of_it_is_counted(copied):
    found = verify(copied, 0)
    assert (found["kind"], found["whole"], found["problems"], found["not_ours"]) == ("run", True, [], [])
    there = [file for file in copied.rglob("*") if file.is_file()]
    counted = sum(sum(states.values()) for states in found["files"].values())
    assert counted == len([file for file in there if file != copied / MARK / "lock"])


def test_files_of_others_are_listed_and_are_no_damage(copied):
    (copied / "masks/mine").mkdir()
    (copied / "masks/mine/a.png").write_bytes(b"mine")
    assert verify(copied, 0)["not_ours"] == ["masks/mine/a.png"]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "one bit flipped": lambda data: data[:-1] + bytes([data[-1] ^ 8]),
    "cut short": lambda data: data[: len(data) // 2],
    "zeroed": lambda data: bytes(len(data)),
    "gone": lambda data: None,
}
TOGETHER = (
    ("shards/000001.tar",),
    ("shards/index.parquet",),
    (
        "salience/*/000000.safetensors",
        "salience/*/000001.parquet",
        "masks/*/000000.parquet",
        "masks/*/000001.done.json",
        "scores/*/000000.pictures.parquet",
    ),
    ("evaluations/*/scores.json", "run.json", "scores.json", "report/index.html", "contact_sheet.png"),
    (f"{MARK}/files.json",),
    (f"{MARK}/shards.json",),
    (f"{MARK}/folder.json",),
)
"""Files that are damaged at the same time, each in another way."""


@pytest.mark.parametrize("artifacts_at_once", TOGETHER, ids=lambda names: names[0])
def test_damage_is_named_and_the_same_run_mends_it(copied, artifacts_at_once):
    before = artifacts(copied)
    states: dict[str, str] = {}
    for place, artifact in enumerate(artifacts_at_once, TOGETHER.index(artifacts_at_once)):
        (file,) = copied.glob(artifact)
        data = DAMAGES[sorted(DAMAGES)[place % len(DAMAGES)]](file.read_bytes())
        file.unlink() if data is None else file.write_bytes(data)
        states[str(file.relative_to(copied))] = "missing" if data is None else "damaged"
    problems = verify(copied, 1)["problems"]
    assert {problem["path"]: problem["state"] for problem in problems} == states
    summary = run_until_it_passes(copied, "000001.tar")
    assert summary.labelled == 8
    assert artifacts(copied) == before
    assert verify(copied, 0)["whole"]


def run_until_it_passes(folder: Path, tar: str) -> RunSummary:
    """The same run again; a damaged tar is named by the first, and written again by the next."""
    try:
        return evaluate(config_of(folder))
    except DamagedError as error:
        if tar not in str(error):
            raise
        return evaluate(config_of(folder))


def make_old(folder: Path) -> None:
    """A run folder as versions wrote it that had no list of their files: records have one digest for all outputs."""
    shutil.rmtree(folder / MARK)
    shutil.rmtree(folder / "report/pictures")
    made: dict[tuple[str, str], str] = {}
    for stage, before in (("salience", ""), ("masks", "salience"), ("scores", "masks")):
        for file in sorted(folder.glob(f"{stage}/*/*.done.json")):
            record = json.loads(file.read_text())
            order = sorted(record["outputs"], key=lambda path: (not path.endswith("safetensors"), path))
            record["sha256"] = sha256("".join(record["digests"][path] for path in order).encode())
            record["input"] = made.get((before, file.name), record["input"])
            data = json_bytes({key: value for key, value in record.items() if key not in ("digests", "seal")})
            file.write_bytes(data)
            made[stage, file.name] = sha256(data)


def test_run_of_a_version_before_is_taken_over_and_nothing_is_computed_again(copied):
    make_old(copied)
    (copied / "masks/mine").mkdir()
    (copied / "masks/mine/000000.parquet").write_bytes(b"mine")
    before = artifacts(copied)
    assert kind_of(RunFolder(str(copied))) == "run"
    found = verify(copied, 0)
    assert found["not_ours"] == ["masks/mine/000000.parquet"]
    assert found["files"]["masks"]["whole"] == 4
    summary = evaluate(config_of(copied))
    assert {name: stage.shards_resumed for name, stage in summary.stages.items() if name != "shard"} == {
        "salience": 2, "masks": 2, "scores": 2,
    }  # fmt: skip
    kept = {file: digest for file, digest in artifacts(copied).items() if not file.startswith("report/pictures/")}
    assert kept == before, "but for pictures beside the report, which there were none of"
    assert verify(copied, 0)["files"]["masks"]["whole"] == 4


def test_damage_in_a_run_of_a_version_before_is_noticed_too(copied):
    make_old(copied)
    (masks,) = copied.glob("masks/*/000001.parquet")
    data = bytearray(masks.read_bytes())
    data[300] ^= 2
    masks.write_bytes(data)
    assert [problem["path"] for problem in verify(copied, 1)["problems"]] == [str(masks.relative_to(copied))]
    assert evaluate(config_of(copied)).mended == [str(masks.relative_to(copied))]
    assert verify(copied, 0)["whole"]


def test_export_and_tables_are_verified_too(copied, tmp_path):
    for command in (["export", str(copied), "--to", "png"], ["tables", str(copied), "--out", str(tmp_path / "tables")]):
        assert runner.invoke(app, command).exit_code == 0
    assert verify(copied, 0)["not_ours"] == []
    mask = next(copied.glob("export/png/masks/*.png"))
    mask.write_bytes(b"mended by hand")
    (tmp_path / "tables/main.csv").unlink()
    assert verify(copied, 1)["problems"] == [
        {"part": "results", "path": str(mask.relative_to(copied)), "state": "damaged"}
    ]
    assert [problem["path"] for problem in verify(tmp_path / "tables", 1)["problems"]] == ["main.csv"]


def test_folder_with_nothing_of_ours_is_one_clear_line(tmp_path):
    (tmp_path / "a.png").write_bytes(b"mine")
    for folder, why in ((tmp_path, "holds nothing that pnp-ovss has written"), (tmp_path / "gone", "does not exist")):
        result = runner.invoke(app, ["verify", str(folder)])
        assert (result.exit_code, why in " ".join(result.output.split())) == (1, True)
