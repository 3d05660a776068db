"""What goes wrong with a shard, a disk or a process, and what is kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flows.pipelines.labelling import label
from pnp_core.config import LabelConfig
from pnp_core.errors import StageFailedError
from pnp_core.runs.plan import plan_label

CLASSES = ("heart", "star")
SMALL, LARGE = (64, 64), (1200, 1200)


@pytest.fixture
def images(tmp_path) -> Path:
    """Four pictures, one in a shard: the third takes the CRF some seconds, the others none to speak of."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for name, size in {"a": SMALL, "b": SMALL, "c": LARGE, "d": SMALL}.items():
        Image.fromarray(noise.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def config(images: Path, out: Path, **dispatch) -> LabelConfig:
    values = {"source": str(images), "classes": CLASSES, "out": str(out), "images_per_shard": 1, "preset": "tiny"}
    slow = {"salience": {"candidates": {"source": "vocabulary"}}, "masks": {"crf": {"name": "dense"}}}
    return LabelConfig.model_validate({**values, **slow, "dispatch": {"backoff": 0, **dispatch}})


def quarantine_of(out: Path) -> list[dict]:
    return [row for f in sorted((out / "quarantine").rglob("*.parquet")) for row in pq.read_table(f).to_pylist()]


def masks_of(out: Path) -> dict[str, bytes]:
    rows = [row for f in sorted((out / "masks").rglob("*.parquet")) for row in pq.read_table(f).to_pylist()]
    return {row["key"]: row["mask"]["bytes"] for row in rows}


@pytest.mark.ops
def test_shard_over_its_time_is_set_aside_after_the_last_attempt_and_the_next_run_tries_it_again(images, tmp_path):
    out = tmp_path / "out"
    limited = config(images, out, shard_seconds=2, attempts=3)
    plan_label(limited).salience.load()  # loading it counts as time of the first shard
    summary = label(limited)
    assert (summary.images, summary.labelled, summary.quarantined, summary.failed) == (4, 3, 1, 1)
    assert summary.stages["masks"].shards_failed == 1
    (row,) = quarantine_of(out)
    assert (row["key"], row["stage"]) == ("c", "masks")
    assert row["reason"].startswith("the shard failed 3 times: it took too long")
    assert list(summary.reasons) == [row["reason"]]
    labelled = masks_of(out)
    assert set(labelled) == {"a", "b", "d"}
    again = label(config(images, out))
    assert (again.labelled, again.resumed, again.quarantined) == (4, 3, 0)
    assert quarantine_of(out) == []
    assert labelled.items() < masks_of(out).items()


def test_run_stops_when_the_first_shards_all_fail(images, tmp_path):
    with pytest.raises(StageFailedError, match="salience: the first 3 shards failed: the shard failed 1 times"):
        label(config(images, tmp_path / "out", shard_seconds=1e-6, attempts=1))


COMMAND = f"{sys.executable} -m flows.cli eval scenes --limit 24 --shards 12 --json"


def in_small_memory_disk(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a shell script that sees a memory disk of 300 kB at $DISK."""
    mount = 'mount -t tmpfs -o size=300k none "$DISK"'
    if not shutil.which("unshare") or subprocess.run(["unshare", "-Urm", "true"], check=False).returncode:
        pytest.skip("a small disk can be made with user namespaces only, which this machine does not allow")
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-c", f"{mount} || exit 77; {script}"],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture
def disk(tmp_path) -> dict[str, str]:
    """Environment of a command with the session's server, and a place for a small disk."""
    (tmp_path / "disk").mkdir()
    return {**os.environ, "DISK": str(tmp_path / "disk")}


@pytest.mark.ops
def test_full_disk_is_one_clear_line_and_a_later_run_resumes(disk):
    script = f'{COMMAND} --out "$DISK/run"; echo "first $?"; mount -o remount,size=200m "$DISK"; '
    done = in_small_memory_disk(script + f'{COMMAND} --out "$DISK/run"; echo "second $?"', disk)
    assert "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "cannot write" in error
    assert "No space left on device" in error
    first, result, second = done.stdout.strip().splitlines()
    assert (first, second) == ("first 1", "second 0")
    assert json.loads(result)["labelled"] == 24


def test_read_only_output_is_one_clear_line(disk):
    done = in_small_memory_disk(f'mount -o remount,ro "$DISK"; {COMMAND} --out "$DISK/run"; echo "end $?"', disk)
    assert done.stdout == "end 1\n"
    (error,) = done.stderr.strip().splitlines()
    assert "Read-only file system" in error


@pytest.mark.ops
@pytest.mark.parametrize(
    ("sign", "to_group", "code"),
    [(signal.SIGTERM, False, 143), (signal.SIGINT, True, 130), (signal.SIGKILL, False, -signal.SIGKILL)],
)
def test_stopped_command_leaves_no_process_and_no_half_file(tmp_path, sign, to_group, code):
    """With the server of its own that a command has when the user has none."""
    out, mark = tmp_path / "run", f"test-{time.time_ns()}"
    environment = {**os.environ, "PREFECT_API_URL": "", "PNP_OVSS_TEST": mark}
    command = [*COMMAND.split(), "--out", str(out)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not list(out.glob("salience/*/*.done.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (os.killpg if to_group else os.kill)(process.pid, sign)
    printed, said = process.communicate(timeout=120)
    assert process.returncode == code, f"{said}\n{printed}"
    if sign != signal.SIGKILL:
        assert said.strip().endswith("stopped: what is done is kept, the same command continues")
        assert not list(out.glob(".pnp-ovss/half-written/*"))
    deadline = time.monotonic() + 60
    while left := [p for p in psutil.process_iter() if marked(p, mark)]:
        assert time.monotonic() < deadline, f"left behind: {[p.cmdline() for p in left]}"
        time.sleep(0.1)


def marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get("PNP_OVSS_TEST") == mark and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
