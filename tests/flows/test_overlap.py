"""Masks of a shard beside the salience of the next: the same results, and no shard waits for another."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from flows.dispatch.base import Stage
from flows.dispatch.inline import Inline
from flows.dispatch.stages import run_side_by_side
from flows.pipelines.evaluation import evaluate
from pnp_core.config import EvalConfig
from pnp_core.data import RunSummary, ShardRef, StageResult
from pnp_core.devices import leaves_cpu
from pnp_core.errors import PnpError, ShardError, StageFailedError
from pnp_core.stages.config import DispatchConfig
from pnp_core.storage.completion import StageFolder
from pnp_core.storage.run_folder import RunFolder
from tasks.runtime import StageTask, run_on_shard
from tests.artifacts import artifacts
from tests.processes import wait_for

WAIT = 60
SHARDS = [ShardRef(f"{n:06d}", samples=1, bytes=0, sha256="0" * 64) for n in range(5)]


def evaluated(out: Path, overlap: bool) -> dict:
    values = {"out": str(out), "limit": 12, "shards": 4, "runtime": {"threads": 1, "overlap": overlap}}
    return evaluate(EvalConfig.model_validate(values)).as_json()


def test_run_with_overlap_is_the_same_byte_for_byte(tmp_path):
    plain, overlapping = (evaluated(tmp_path / str(o), o) for o in (False, True))
    assert overlapping["miou"] == plain["miou"]
    assert artifacts(tmp_path / "True") == artifacts(tmp_path / "False")
    again = evaluated(tmp_path / "True", True)
    assert (again["resumed"], again["miou"]) == (12, plain["miou"])


class Pair:
    """Two stages that do what a test says, over shards without content."""

    def __init__(self, out: Path, first, second) -> None:
        def stage(name: str, work) -> Stage:
            def do(job, shard: ShardRef, before) -> StageResult:
                work(shard)
                return StageResult(name, shard.name, done=1, quarantined=0, record_sha256="", resumed=False)

            folder = StageFolder(RunFolder(str(out)), name, "0" * 16)
            return Stage(name, StageTask(do, name), None, folder)

        self.first, self.second = stage("salience", first), stage("masks", second)
        self.summary = RunSummary(str(out))

    def run(self) -> list[str]:
        here = Inline(DispatchConfig(attempts=1))
        done = run_side_by_side(self.first, self.second, [(s, None) for s in SHARDS], self.summary, here, "run")
        return [shard.name for shard, _ in done]


def nothing(shard: ShardRef) -> None:
    """Every shard is through at once."""


def test_masks_of_a_shard_are_made_while_the_next_is_looked_at(tmp_path):
    masked = threading.Event()

    def looks(shard: ShardRef) -> None:
        # The second shard's salience ends only after the first one's masks: would stages wait, it never would.
        assert shard is not SHARDS[1] or masked.wait(WAIT)

    assert Pair(tmp_path, looks, lambda shard: masked.set()).run() == [shard.name for shard in SHARDS]


def fail_at(*numbers: int, error: type[Exception] = ShardError):
    def work(shard: ShardRef) -> None:
        if int(shard.name) in numbers:
            raise error(f"shard {shard.name} is bad")

    return work


def set_aside(monkeypatch) -> None:
    """Shards of these tests have no pictures that could be set aside."""

    def failed(folder: StageFolder, shard: ShardRef, *_) -> StageResult:
        return StageResult(folder.stage, shard.name, 0, 1, record_sha256="", resumed=False, failed=True)

    monkeypatch.setattr("flows.dispatch.stages.set_shard_aside", failed)


def test_shards_that_fail_in_either_stage_keep_nothing_back(tmp_path, monkeypatch):
    set_aside(monkeypatch)
    pair = Pair(tmp_path, fail_at(1), fail_at(3))
    assert pair.run() == ["000000", "000002", "000004"]
    assert {name: stage.shards_failed for name, stage in pair.summary.stages.items()} == {"salience": 1, "masks": 1}


@pytest.mark.parametrize("broken", ["salience", "masks"])
def test_error_of_the_run_in_either_stage_ends_both(tmp_path, broken):
    begun: list[str] = []

    def count(shard: ShardRef) -> None:
        begun.append(shard.name)

    stop = fail_at(1, error=PnpError)
    pair = Pair(tmp_path, *((stop, count) if broken == "salience" else (nothing, stop)))
    with pytest.raises(PnpError, match="shard 000001 is bad"):
        pair.run()
    assert begun in ([], ["000000"])
    assert [t.name for t in threading.enumerate() if t.name.startswith("masks")] == []


def test_masks_that_all_fail_end_the_run(tmp_path, monkeypatch):
    set_aside(monkeypatch)
    monkeypatch.setattr("flows.dispatch.stages._reasons", lambda stage, shard: shard.name)
    with pytest.raises(StageFailedError, match="masks: the first 3 shards failed"):
        Pair(tmp_path, nothing, fail_at(*range(5))).run()
    with pytest.raises(StageFailedError, match="masks: all shards failed: 000004"):  # only one came that far
        Pair(tmp_path, fail_at(0, 1, 3), fail_at(2, 4)).run()


@pytest.mark.parametrize("at", ["looking", "masking"])
def test_interrupted_run_ends_with_the_next_pictures_of_the_masks(tmp_path, at):
    """Of masks that take a second a picture, 60 pictures a shard."""
    begun, done = threading.Event(), []

    def masks(shard: ShardRef) -> None:
        def work(progress) -> StageResult:
            begun.set()
            for _ in range(60):
                progress(1)
                time.sleep(1)
            done.append(shard.name)
            raise AssertionError("nobody has stopped it")

        run_on_shard("masks", shard, work)

    def looks(shard: ShardRef) -> None:
        if at == "looking" and shard is SHARDS[1]:
            assert begun.wait(WAIT)
            raise KeyboardInterrupt

    def interrupted() -> None:
        """When only masks are left: inside its tasks Prefect may take a signal for their failure."""
        assert begun.wait(WAIT)
        wait_for(lambda: pair.summary.stages["salience"].shards == len(SHARDS), "salience to be over", WAIT)
        time.sleep(1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    pair = Pair(tmp_path, looks, masks)
    start = time.monotonic()
    if at == "masking":
        threading.Thread(target=interrupted).start()
    with pytest.raises(KeyboardInterrupt):
        pair.run()
    assert time.monotonic() - start < 30
    assert not done


def test_stages_are_told_in_their_order(tmp_path):
    pair = Pair(tmp_path, nothing, nothing)
    pair.run()
    assert list(pair.summary.stages) == ["salience", "masks"]


def test_device_that_is_not_there_is_asked_for_by_nobody_but_the_model():
    assert [leaves_cpu(name) for name in ("cpu", "cuda", "cuda:7", "mps")] == [False, True, True, True]
    assert leaves_cpu("auto") == torch.cuda.is_available()
