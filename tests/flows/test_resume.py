"""kill -9 of the real command in the middle of a stage, then the same command again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest
from PIL import Image

from flows.pipelines.evaluation import evaluate
from flows.pipelines.labelling import label
from pnp_core.config import EvalConfig, LabelConfig
from pnp_core.runs.plan import plan_label
from pnp_core.runs.preflight import check_label, remarks
from pnp_core.stages.maps import SalienceJob
from tests.artifacts import artifacts

COMMAND = [sys.executable, "-m", "flows.cli", "eval", "scenes", "--limit", "30", "--shards", "6", "--json"]


@pytest.fixture
def environment() -> dict[str, str]:
    """The session's server, so that a killed command leaves no server of its own behind."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run(out: Path, environment: dict[str, str]) -> dict:
    done = subprocess.run(
        [*COMMAND, "--out", str(out)], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def records(out: Path, stage: str) -> dict[str, tuple[int, int]]:
    """Completion records of a stage, with what changes when a file is written again."""
    found = sorted((out / stage).glob("*/*.done.json"))
    return {f.name: (f.stat().st_ino, f.stat().st_mtime_ns) for f in found}


def kill_in(stage: str, out: Path, environment: dict[str, str]) -> dict[str, tuple[int, int]]:
    """Start the command, kill it once some but not all shards of the stage are complete."""
    process = subprocess.Popen(
        [*COMMAND, "--out", str(out)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not records(out, stage):
        assert process.poll() is None, "the command ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = records(out, stage)
    assert 0 < len(left) < 6, f"not killed in the middle: {len(left)} of 6 shards complete"
    return left


@pytest.mark.first
def test_killed_run_resumes_without_recomputing_and_equals_an_undisturbed_one(tmp_path, environment):
    config = {"out": str(tmp_path / "undisturbed"), "limit": 30, "shards": 6, "runtime": {"threads": 1}}
    undisturbed = evaluate(EvalConfig.model_validate(config)).as_json()
    out = tmp_path / "killed"
    salience_done = kill_in("salience", out, environment)
    masks_done = kill_in("masks", out, environment)
    after_second_kill = records(out, "salience")
    assert salience_done.items() <= after_second_kill.items()
    final = run(out, environment)
    assert masks_done.items() <= records(out, "masks").items()
    assert after_second_kill == records(out, "salience")
    assert final["stages"]["salience"]["shards_resumed"] == 6
    assert final["stages"]["masks"]["shards_resumed"] == len(masks_done)
    assert artifacts(out) == artifacts(tmp_path / "undisturbed")
    assert {k: final[k] for k in ("images", "labelled", "miou", "per_class_iou")} == {
        k: undisturbed[k] for k in ("images", "labelled", "miou", "per_class_iou")
    }


def test_nothing_left_to_do_loads_no_model(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "in/a.png")
    values = {"source": str(tmp_path / "in"), "classes": ["heart"], "out": str(tmp_path / "out"), "preset": "tiny"}
    config = LabelConfig.model_validate(values)
    label(config)

    def load(job: SalienceJob) -> NoReturn:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(SalienceJob, "load", load)
    assert check_label(config) == remarks(plan_label(config).salience)
    assert label(config).resumed == 1
    with pytest.raises(AssertionError, match="was loaded"):
        check_label(config.model_copy(update={"classes": ("star",)}))
