"""What people who watch a run are told of its workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, WorkQueueStatus
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Pending, Running

from flows.cli import watching
from flows.cli.watching import Attendance

POOL = "watched"


@flow
def nothing() -> None:
    """A flow to have runs of."""


@pytest.fixture(scope="module")
def client(prefect_server) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as opened:
        with suppress(ObjectAlreadyExists):  # of another round of this fixture
            opened.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        yield opened


def waiting_run(client: SyncPrefectClient, queue: str) -> FlowRun:
    """A run in a new queue that no worker has ever looked into."""
    flow_id = client.create_flow(nothing)
    deployment = client.create_deployment(flow_id, name=queue, work_pool_name=POOL, work_queue_name=queue)
    return client.create_flow_run_from_deployment(deployment)


def ask_for_runs(client: SyncPrefectClient, queue: str) -> None:
    """Do what a worker does every few seconds."""
    client.request("POST", f"/work_pools/{POOL}/get_scheduled_flow_runs", json={"work_queue_names": [queue]})
    deadline = time.monotonic() + 30
    while client.read_work_queue_by_name(queue, POOL).status is not WorkQueueStatus.READY:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def attendance(client, monkeypatch) -> Attendance:
    monkeypatch.setattr(watching, "LOOK_EVERY", 0)
    return Attendance(client)


@pytest.mark.parametrize("state", [None, Pending(), Running()])
def test_queue_without_a_worker_is_told_once_and_so_is_its_worker(client, attendance, state):
    queue = f"lonely-{state.name if state else 'scheduled'}"
    run = waiting_run(client, queue)
    if state:
        client.set_flow_run_state(run.id, state, force=True)
        run = client.read_flow_run(run.id)
    (told,) = attendance.news(run)
    assert told.startswith(f"[yellow]warning[/]: no worker of queue '{queue}' is alive: `prefect worker start --pool ")
    assert attendance.news(run) == []
    ask_for_runs(client, queue)
    assert attendance.news(run) == [f"[dim]queue '{queue}' has a worker again[/]"]
    assert attendance.news(run) == []


def test_queue_of_the_batches_that_a_run_waits_for_is_looked_at_too(client, attendance):
    run = waiting_run(client, "cared-for")
    ask_for_runs(client, "cared-for")
    waited_for = client.create_task_run(task(nothing.fn), flow_run_id=run.id, dynamic_key="0")
    batch = waiting_run(client, "batches")
    parent = {"parent_task_run_id": str(waited_for.id)}
    client.request("POST", f"/deployments/{batch.deployment_id}/create_flow_run", json=parent)
    (told,) = attendance.news(run)
    assert "no worker of queue 'batches' is alive" in told


def test_run_that_waits_for_others_is_told_once(client, attendance, monkeypatch):
    monkeypatch.setattr(watching, "UNTAKEN", 0)
    run = waiting_run(client, "busy")
    ask_for_runs(client, "busy")
    assert attendance.news(run) == [
        "[yellow]warning[/]: it waits: other runs of queue 'busy' or of its deployment are under way"
    ]
    assert attendance.news(run) == []
