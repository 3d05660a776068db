"""How shards are handed out, and what a worker is told of them."""

import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow

from flows.dispatch.base import Stage
from flows.dispatch.dask import DaskWorkers, WorkersLostError
from flows.dispatch.deployment import batches
from flows.server.deployment_runs import place
from pnp_core.config import EvalConfig, LabelConfig
from pnp_core.data import Quarantined, ShardRef, StageResult
from pnp_core.errors import UnknownNameError, UsageError
from pnp_core.runs.plan import plan_eval
from pnp_core.stages.batch import SalienceBatch
from pnp_core.stages.config import DispatchConfig
from pnp_core.storage.completion import StageFolder, StageOutput
from pnp_core.storage.run_folder import RunFolder, sha256
from pnp_core.storage.shards import pack, set_shard_aside, shard_file
from tasks.runtime import stage_task
from tests.models import sample_of
from tests.processes import wait_for


def refs(number: int) -> list[ShardRef]:
    return [ShardRef(f"{i:06d}", 2, 10, "0" * 64) for i in range(number)]


@given(number=st.integers(1, 300), workers=st.integers(1, 9), most=st.integers(1, 64))
def test_batches_hold_every_shard_once_in_order_and_are_one_per_worker_unless_too_large(number, workers, most):
    made = list(batches(refs(number), workers, most))
    assert [shard for batch in made for shard in batch] == refs(number)
    assert max(map(len, made)) <= most
    if number <= workers * most:
        assert len(made) <= workers


def test_worker_makes_the_same_job_of_what_it_is_sent(tmp_path):
    job = plan_eval(EvalConfig(out=str(tmp_path))).salience
    sent = SalienceBatch.of(job, refs(2), DispatchConfig()).model_dump(mode="json")
    batch = SalienceBatch.model_validate(sent)
    assert batch.job() == job
    assert list(batch.shards) == refs(2)


def test_worker_with_other_weights_refuses(tmp_path):
    job = plan_eval(EvalConfig(out=str(tmp_path))).salience
    batch = SalienceBatch.of(job, refs(1), DispatchConfig()).model_copy(update={"fingerprint": "0" * 16})
    with pytest.raises(UsageError, match="this worker would make other salience"):
        batch.job()


def test_shard_given_up_has_every_picture_in_quarantine_but_those_of_the_stage_before(tmp_path):
    run = RunFolder(str(tmp_path))
    data = pack([sample_of("a"), sample_of("b"), sample_of("c")])
    run.put(shard_file("000000"), data)
    shard = ShardRef("000000", 3, len(data), sha256(data))
    salience, masks = StageFolder(run, "salience", "f"), StageFolder(run, "masks", "g")
    salience.complete("000000", "x", lambda: StageOutput({}, 2, [Quarantined("b", "b.png", "salience", "broken")]))
    result = set_shard_aside(masks, shard, "the shard failed", salience)
    assert (result.failed, result.done, result.quarantined) == (True, 0, 2)
    assert [(row.key, row.stage, row.reason) for row in masks.quarantined("000000")] == [
        ("a", "masks", "the shard failed"),
        ("c", "masks", "the shard failed"),
    ]
    assert masks.find("000000", "x") is None
    assert masks.find_failed("000000") == result
    done = masks.complete("000000", "x", lambda: StageOutput({}, 2))
    assert (done.failed, masks.find_failed("000000")) == (False, None)
    assert not run.exists(masks.quarantine_file("000000"))


def test_paths_are_placed_where_a_worker_finds_them_or_refused(tmp_path):
    config = {"data": "VOC", "source": "s3://bucket/x", "settings": "/a/best.yaml"}
    placed = place(config, "eval-voc", "/here")
    assert placed == {**config, "data": "/here/VOC", "out": "/here/runs/eval-voc"}
    with pytest.raises(UsageError, match="give the run folder"):
        place(config, "eval-voc", None)
    nested = {**config, "salience": {"backbone": {"checkpoint": "blip"}, "candidates": {"file": "c.json"}}}
    assert place({"runs": ["a", "/b", "s3://c"]}, "tables", "/here")["runs"] == ["/here/a", "/b", "s3://c"]
    placed = place({**nested, "dataset": "voc21"}, "eval-voc", str(tmp_path))
    assert (placed["dataset"], placed["salience"]["backbone"]["checkpoint"]) == ("voc21", "blip")
    assert placed["salience"]["candidates"]["file"] == str(tmp_path / "c.json")
    (tmp_path / "blip").mkdir()
    assert place(nested, "x", str(tmp_path))["salience"]["backbone"]["checkpoint"] == str(tmp_path / "blip")
    clip = {"model": "local-dir:mine", "pretrained": "openai", "prompts": "p.safetensors"}
    method = {"name": "classify", "clip": clip, "proposals": "runs/plain", "runs": ["a", {"run": "b", "weight": 2}]}
    placed = place({"method": method}, "eval-voc", "/here")["method"]
    assert placed["clip"] == {**clip, "model": "local-dir:/here/mine", "prompts": "/here/p.safetensors"}
    assert (placed["proposals"], placed["runs"]) == (
        "/here/runs/plain",
        ["/here/a", {"run": "/here/b", "weight": 2}],
    )
    (tmp_path / "tiny").mkdir()
    assert place({"method": {"clip": {"model": "tiny"}}}, "x", str(tmp_path))["method"]["clip"]["model"] == "tiny"
    with pytest.raises(UsageError, match="data=VOC is relative"):
        place({**config, "out": "s3://bucket/out"}, "eval-voc", None)


def test_dispatch_enters_no_fingerprint(tmp_path):
    plain = EvalConfig(out=str(tmp_path))
    other = EvalConfig(out=str(tmp_path), dispatch=DispatchConfig(mode="dask", workers=7))
    assert plan_eval(plain).masks.fingerprint == plan_eval(other).masks.fingerprint


def test_errors_come_through_a_process_boundary_whole():
    error = pickle.loads(pickle.dumps(UnknownNameError("preset", "auhtors", ["authors", "tiny"])))
    assert str(error) == "unknown preset 'auhtors'; did you mean 'authors'? available: authors, tiny"
    assert error.exit_code == 2


def test_dispatch_to_a_server_without_deployments_is_refused(tmp_path, prefect_server):
    from flows.evaluation import evaluate_dataset

    config = EvalConfig.model_validate(
        {"out": str(tmp_path / "run"), "limit": 2, "shards": 1, "dispatch": {"mode": "deployment"}}
    )
    with pytest.raises(UsageError, match="has no deployment 'salience/gpu'; `pnp-ovss deploy` makes it"):
        evaluate_dataset(config)


@pytest.mark.ops
def test_dask_scheduler_that_is_not_there_is_one_clear_line(tmp_path, prefect_server):
    from flows.evaluation import evaluate_dataset

    dispatch = {"mode": "dask", "scheduler": "tcp://127.0.0.1:9"}
    config = EvalConfig.model_validate({"out": str(tmp_path / "run"), "limit": 2, "shards": 1, "dispatch": dispatch})
    with pytest.raises(UsageError, match=r"cannot reach the Dask scheduler tcp://127\.0\.0\.1:9"):
        evaluate_dataset(config)


def test_label_configuration_takes_dispatch_too():
    config = LabelConfig.model_validate(
        {"source": "x", "classes": ["cat"], "out": "y", "dispatch": {"attempts": 5, "shard_seconds": 60}}
    )
    assert (config.dispatch.attempts, config.dispatch.mode) == (5, "inline")


@stage_task("salience")
def wait_a_little(job: str, shard: ShardRef, before: None) -> StageResult:
    """A stage that keeps its worker busy until a file is there."""
    Path(job).with_name("begun").touch()
    while not Path(job).exists():
        time.sleep(0.05)
    return StageResult("salience", shard.name, shard.samples, 0, "", resumed=False)


@flow
def on_dask(scheduler: str, go_on: str, lost_after: float) -> list[ShardRef]:
    """Three shards."""
    dispatch = DispatchConfig(mode="dask", scheduler=scheduler, lost_after=lost_after)
    work = [(shard, None) for shard in refs(3)]
    with DaskWorkers(dispatch) as workers:
        return [shard for shard, _ in workers.run(Stage("salience", wait_a_little, go_on, needs="gpu"), work)]


@pytest.fixture
def cluster():
    """A Dask cluster of somebody else."""
    from distributed import LocalCluster

    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with LocalCluster(**options, resources={"GPU": 1}) as running:
        yield running


@pytest.fixture
def go_on(tmp_path):
    """While it is not there the first shard is under way."""
    return tmp_path / "go on"


@pytest.fixture
def dispatched(cluster, go_on, monkeypatch, prefect_server):
    """Three shards on the cluster, and what happens to it meanwhile."""
    monkeypatch.setattr("flows.dispatch.dask.LOOK_EVERY", 0.2)

    def once_begun(happens: Callable[[], Any]) -> None:
        wait_for(go_on.with_name("begun").exists, "the first shard to begin", 60)
        happens()

    def run(happens: Callable[[], Any], lost_after: float = 300) -> list[ShardRef]:
        with ThreadPoolExecutor() as beside:
            happened = beside.submit(once_begun, happens)
            try:
                return on_dask(cluster.scheduler_address, str(go_on), lost_after)
            finally:
                happened.result()
                go_on.touch()

    return run


def test_dask_cluster_without_workers_ends_the_run_with_one_line(dispatched, cluster):
    with pytest.raises(WorkersLostError, match="no worker with a GPU for 1 s: start some and run again"):
        dispatched(lambda: cluster.scale(0), lost_after=1)


def test_dask_scheduler_that_ends_ends_the_run_and_gives_no_shard_up(dispatched, cluster, go_on):
    with pytest.raises(WorkersLostError, match="the Dask cluster was stopped"):
        dispatched(lambda: (go_on.touch(), cluster.close()))
