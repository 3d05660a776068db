"""The stack, its deployments and its workers, as users have them; and what happens to them."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter
from typer.testing import CliRunner

from flows.cli import app
from tests.artifacts import artifacts
from tests.ops.conftest import RealStack, last_json, records
from tests.processes import wait_for

pytestmark = pytest.mark.ops

RUN = ["-p", "limit=12", "-p", "shards=6", "-p", "runtime.threads=1"]
SHARDS = 12
SLOW = ["limit=60", f"shards={SHARDS}", "runtime.threads=1", "masks.crf.name='off'"]
SLOW += ["salience.dropout={iterations: 16, strategy: fraction, amount: 0.02}"]
SLOW += ["dispatch={mode: deployment, lost_after: 40, attempts: 20, backoff: 0}"]
"""Salience that takes most of a second for each of its shards, so that it can be killed in between. On a slow machine a
worker may take longer than `lost_after` to start: it is tried again until it does not."""
DONE = "salience/*/*.done.json"


@pytest.fixture(scope="module")
def undisturbed(stack: RealStack, on_dask, slow_undisturbed, tmp_path_factory) -> Path:
    """A run on the stack, watched to its end, inline."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    done = stack.call("run", "eval-scenes", *RUN, "-p", f"out={out}", "--watch", "--json")
    assert last_json(done.stdout)["state"] == "Completed"
    assert "12 pictures: 12 labelled, 0 quarantined" in done.stdout
    return out


def run_of(client: SyncPrefectClient, out: Path) -> Any:
    """The flow run that writes a folder, newest first."""
    runs = [r for r in client.read_flow_runs(limit=200) if (r.parameters.get("config") or {}).get("out") == str(out)]
    return max(runs, key=lambda r: r.created, default=None)


def artifacts_of(client: SyncPrefectClient, run: Any) -> dict[str, Any]:
    wanted: Any = {"flow_run_id": {"any_": [str(run.id)]}}
    return {a.key: a for a in client.read_artifacts(artifact_filter=ArtifactFilter.model_validate(wanted))}


def test_run_leaves_progress_a_page_with_pictures_and_a_table_of_scores(stack, undisturbed, client):
    run = run_of(client, undisturbed)
    assert run.name == "scenes-12"
    found = artifacts_of(client, run)
    assert {"progress-salience", "progress-masks", "progress-scores", "run", "per-class-iou"} <= set(found)
    assert all(found[f"progress-{stage}"].data == 100 for stage in ("salience", "masks", "scores"))
    assert found["run"].data.count("](data:image/jpeg;base64,") == 4
    assert len(found["run"].data) < 100_000
    assert '"class": "heart"' in found["per-class-iou"].data


def test_dispatch_to_a_deployment_gives_the_same_masks(stack, undisturbed, tmp_path, client):
    out = tmp_path / "deployed"
    stack.call(
        "run", "eval-scenes", *RUN, "-p", "dispatch={mode: deployment, workers: 2}", "-p", f"out={out}", "--watch"
    )
    assert artifacts(out) == artifacts(undisturbed)
    tag: Any = {"tags": {"all_": ["pnp-ovss", "salience"]}}
    batches = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(tag))
    ours = [r for r in batches if r.parameters["batch"]["out"] == str(out)]
    assert sorted(len(r.parameters["batch"]["shards"]) for r in ours) == [3, 3]


def test_dispatch_to_dask_gives_the_same_masks_though_a_worker_is_killed(undisturbed, on_dask):
    assert artifacts(on_dask.finish()) == artifacts(undisturbed)
    assert on_dask.happened == 2


def test_prefects_own_command_runs_a_dataset_that_was_told_once(stack, client, shared_data):
    """`prefect deployment run eval/eval-voc`; the weights that its preset needs are not here, so others are named."""
    stack.call("config", "set", "data.voc21", str(shared_data / "VOCdevkit"))
    (deployment,) = (d for d in client.read_deployments() if d.name == "eval-voc")
    light = {
        "preset": "tiny",
        "limit": 2,
        "shards": 1,
        "dispatch": {"mode": "inline"},
        "masks": {"crf": {"name": "off"}},
    }
    own = {"config": {**deployment.parameters["config"], **light}}  # as on the deployment's page
    client.request("PATCH", "/deployments/{id}", path_params={"id": deployment.id}, json={"parameters": own})
    command = [sys.executable, "-m", "prefect", "deployment", "run", "eval/eval-voc", "--watch"]
    access = {"PREFECT_API_URL": stack.state.api, "PREFECT_API_AUTH_STRING": stack.state.secret}
    done = subprocess.run(command, env=stack.environment | access, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + stack.logs()
    record = json.loads((Path(stack.environment["HOME"]) / "pnp-ovss" / "eval-voc" / "run.json").read_text())
    assert (record["config"]["data"], record["summary"]["labelled"]) == (str(shared_data / "VOCdevkit"), 2)


def test_tables_are_made_on_the_stack(stack, undisturbed, tmp_path):
    stack.call("run", "tables", "-p", f"runs=[{undisturbed}]", "-p", f"out={tmp_path}", "--watch")
    assert "scenes" in (tmp_path / "tables.md").read_text()


def test_failed_run_is_told_to_the_webhook_and_fails_the_command(stack, tmp_path, client):
    """Several runs where needed: on an overloaded machine Prefect's SQLite drops the event now and then."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    out = blocked / "run"
    for _ in range(3):
        done = stack.call("run", "eval-scenes", "-p", f"out={out}", "--watch", code=1)
        assert "ended as Failed" in done.stderr
        assert "cannot write" in done.stderr
        run = run_of(client, out)
        with contextlib.suppress(TimeoutError):
            wait_for(lambda: stack.failures.received, "the webhook to be called", 60)
            break
    told = stack.failures.received[-1]
    assert (told["flow"], told["run"], told["state"]) == ("eval", "scenes-200", "Failed")
    assert "cannot write" in told["message"]
    assert str(run.id) in told["url"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["eval-vok"], "no deployment 'eval-vok' on http://127.0.0.1:{port}/api; did you mean 'eval-voc'?"),
        (["tune/eval-voc"], "no deployment 'tune/eval-voc'"),
        (["eval-scenes", "-p", "limt=3"], "unknown key 'limt'; did you mean 'limit'?"),
        (["eval-scenes", "-p", "limit"], "-p limit: expected KEY=VALUE"),
        (["eval-scenes", "-p", "limit=many"], "limit"),
    ],
)
def test_run_that_cannot_be_is_one_clear_line(stack, client, arguments, says):
    result = CliRunner().invoke(app, ["run", *arguments])
    assert result.exit_code == 2, result.output
    assert says.format(port=stack.port) in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_up_again_starts_nothing_twice(stack):
    before = stack.state.started
    stack.up()
    assert stack.state.started == before


class Disturbed:
    """A run that is killed again and again."""

    def __init__(self, stack: RealStack, out: Path) -> None:
        self.stack, self.out, self.kept = stack, out, {}

    def begin(self) -> None:
        result = CliRunner().invoke(app, ["run", "eval-scenes", *self.parameters])
        assert result.exit_code == 0, result.output

    @property
    def parameters(self) -> list[str]:
        """Of the run."""
        return [part for value in (*SLOW, f"out={self.out}") for part in ("-p", value)]

    def wait_for_shards(self, more: int) -> None:
        """Until so many more shards have salience; those before must be as they were."""
        number = len(records(self.out, "salience")) + more
        wait_for(lambda: len(records(self.out, "salience")) >= number, f"{number} shards with salience")

    def kill(self, processes: list[psutil.Process], early: bool = True) -> None:
        assert processes, "nothing to kill"
        for process in processes:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=60)
        self.kept = {**self.kept, **records(self.out, "salience")}
        assert not early or len(self.kept) < SHARDS, "killed too late to tell anything"


def test_killed_worker_flow_both_and_server_lose_nothing_and_repeat_at_most_what_was_in_flight(
    stack, slow_undisturbed, many_images, tmp_path, client
):
    disturbed = Disturbed(stack, out := tmp_path / "disturbed")

    def worker() -> list[psutil.Process]:
        """The worker of queue gpu and all below it."""
        process = stack.state.process("gpu")
        return [*process.children(recursive=True), process]

    def flow() -> list[psutil.Process]:
        return stack.processes_of(str(run_of(client, out).id))

    disturbed.begin()
    disturbed.wait_for_shards(2)
    disturbed.kill(worker())
    stack.up()
    disturbed.wait_for_shards(2)  # the same run found out by itself and went on
    disturbed.kill([*flow(), *worker()])
    stack.up()
    disturbed.begin()
    disturbed.wait_for_shards(2)
    disturbed.kill(flow())
    # Its worker does not notice, and goes on with the shards it was given: all may be done before this is over.
    wait_for(lambda: run_of(client, out).state.is_crashed(), "the flow to be marked as crashed")
    disturbed.begin()
    disturbed.kill([stack.state.process("server")], early=False)
    stack.up()
    stack.call("run", "eval-scenes", *disturbed.parameters, "--watch")
    assert artifacts(out) == artifacts(slow_undisturbed.finish())
    assert disturbed.kept.items() <= records(out, "salience").items(), "a finished shard was made again"
    # A batch is one process that makes one shard after the other.
    assert repeated(client, out) <= stopped_batches(client, out), "more was made again than was in flight"


def batches_of(client: SyncPrefectClient, out: Path) -> list[Any]:
    """Flow runs that workers made salience in, for a run folder."""
    tag: Any = {"tags": {"all_": ["pnp-ovss", "salience"]}}
    batches = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(tag))
    return [batch for batch in batches if batch.parameters["batch"]["out"] == str(out)]


def stopped_batches(client: SyncPrefectClient, out: Path) -> int:
    """Batches that were killed, stopped by a later run, or given up for lost."""
    return sum(not batch.state.is_completed() for batch in batches_of(client, out) if batch.start_time)


def repeated(client: SyncPrefectClient, out: Path) -> int:
    """How often workers set about a shard that was not done, but for once for each."""
    of_batches: Any = {"id": {"any_": [str(batch.id) for batch in batches_of(client, out)]}}
    tasks = client.read_task_runs(flow_run_filter=FlowRunFilter.model_validate(of_batches), limit=200)
    done = {f"salience-{f.name.removesuffix('.done.json')}": f.stat().st_mtime for f in out.glob(DONE)}
    # One that was killed before it had the name of its shard has not set about it.
    begun = [task for task in tasks if task.start_time is not None and task.name in done]
    return sum(task.start_time.timestamp() < done[task.name] for task in begun) - SHARDS


def test_memory_of_the_driver_is_that_of_a_batch_not_of_the_corpus(many_images):
    many_images.finish()
    for stage in ("salience", "masks"):
        used = [rss for (name, shards), rss in many_images.memory.items() if name == stage and shards >= 12]
        assert len(used) > 12, "sampled too seldom to tell"
        # Medians, since what a shard takes comes and goes: ten shards or more lie between, 115 MB of images alone.
        assert median(used[-5:]) - median(used[:5]) < 60e6
