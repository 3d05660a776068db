"""Watching a flow run that works elsewhere."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic, sleep
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, WorkQueueStatus
from prefect.exceptions import ObjectNotFound
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from flows.cli.console import errors, shown
from flows.server.deployment_runs import StartedRun
from flows.server.stack import POOL
from pnp_core.corpus.manifest import LATEST, read_pointer
from pnp_core.errors import OutputError
from pnp_core.runs.record import RecordedSummary, read_record
from pnp_core.storage.run_folder import RunFolder

POLL = 1.0
LOOK_EVERY = 5.0
"""Seconds between looks at the queues."""
UNFINISHED = ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING"]
UNTAKEN = 45.0
"""Seconds after which people are told why a run waits."""


def watch_run(started: StartedRun) -> State[Any]:
    """Show the progress of a flow run until it ends; returns its last state."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    said = ""
    with get_client(sync_client=True) as client, Progress(*columns, console=errors) as bars:
        tasks: dict[str, TaskID] = {}
        attendance = Attendance(client)
        while True:
            run = client.read_flow_run(started.id)
            assert run.state
            if run.state.name != said:
                said = run.state.name or ""
                bars.console.print(f"[dim]{shown(said.lower())}[/]")
            _show_progress(client, started, bars, tasks)
            if run.state.is_final():
                return run.state
            for news in attendance.news(run):
                bars.console.print(news, soft_wrap=True)
            sleep(POLL)


class Attendance:
    """Whether workers look after the queues that a run waits in or works from, its batches' queues too.

    The server decides: a queue that nobody has asked for runs for a minute is not ready. Workers themselves do not
    say which queues they serve.
    """

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._begun = self._looked = monotonic()
        self._deserted: set[tuple[str, str]] = set()
        self._waiting_told = False

    def news(self, run: FlowRun) -> list[str]:
        """What has changed since people were last told, a line each, with markup."""
        if monotonic() - self._looked < LOOK_EVERY:
            return []
        self._looked = monotonic()
        places = self._places(run)
        deserted = {place for place in places if self._is_deserted(*place)}
        gone, back = deserted - self._deserted, (places - deserted) & self._deserted
        self._deserted = deserted | (self._deserted - places)
        return [
            *(
                _warning(f"no worker of queue '{queue}' is alive: {_start(pool, queue)}")
                for pool, queue in sorted(gone)
            ),
            *(f"[dim]queue '{shown(queue)}' has a worker again[/]" for _, queue in sorted(back)),
            *self._why_it_waits(run),
        ]

    def _places(self, run: FlowRun) -> set[tuple[str, str]]:
        """Pool and queue of a run and of the runs it waits for."""
        of_run: Any = {"parent_flow_run_id": {"any_": [run.id]}, "state": {"type": {"any_": UNFINISHED}}}
        children = self._client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(of_run))
        return {
            (r.work_pool_name, r.work_queue_name) for r in (run, *children) if r.work_pool_name and r.work_queue_name
        }

    def _is_deserted(self, pool: str, queue: str) -> bool:
        with suppress(ObjectNotFound):  # deleted meanwhile
            return self._client.read_work_queue_by_name(queue, pool).status is WorkQueueStatus.NOT_READY
        return True

    def _why_it_waits(self, run: FlowRun) -> list[str]:
        """Said once, of a run that workers could take and do not."""
        assert run.state
        waits = run.state.is_scheduled() and not self._deserted and monotonic() - self._begun > UNTAKEN
        if not waits or self._waiting_told:
            return []
        self._waiting_told = True
        return [_warning(f"it waits: other runs of queue '{run.work_queue_name}' or of its deployment are under way")]


def _start(pool: str, queue: str) -> str:
    """How workers are started."""
    ours = "`pnp-ovss up` on the machine of its stack, or " if pool == POOL else ""
    return f"{ours}`prefect worker start --pool {pool} --work-queue {queue}`, starts one"


def _warning(text: str) -> str:
    return f"[yellow]warning[/]: {shown(text)}"


def _show_progress(client: SyncPrefectClient, started: StartedRun, bars: Progress, tasks: dict[str, TaskID]) -> None:
    """Bring the bars in line with the run's progress artifacts."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[started.id]))
    for artifact in sorted(client.read_artifacts(artifact_filter=of_run), key=lambda a: str(a.created)):
        key = artifact.key or ""
        if artifact.type == "progress" and isinstance(artifact.data, int | float):
            if key not in tasks:
                tasks[key] = bars.add_task(shown(artifact.description or key), total=100)
            bars.update(tasks[key], completed=artifact.data)


def show_result(out: str) -> None:
    """What a finished run says of itself, where its folder can be read from here.

    Raises:
        CorruptRunError: its record is damaged.
    """
    try:
        run = RunFolder(out)
        record, corpus = read_record(run), read_pointer(run, LATEST)
    except OutputError:
        return
    if record:
        _show_run(record.summary, Console())
    elif corpus:
        _show_corpus(out, corpus, Console())


def _show_run(summary: RecordedSummary, console: Console) -> None:
    console.print(f"{summary.images} pictures: {summary.labelled} labelled, {summary.quarantined} quarantined")
    if summary.miou is not None:
        console.print(f"mIoU           {summary.miou:.4f}")
    console.print(f"masks          {shown(summary.masks)}", soft_wrap=True)


def _show_corpus(out: str, latest: dict[str, Any], console: Console) -> None:
    counts = (shown(str(latest.get(name))) for name in ("pictures", "labelled", "quarantined"))
    console.print("{} pictures: {} labelled, {} quarantined".format(*counts))
    console.print(f"manifest       {shown(out.rstrip('/'))}/{shown(str(latest['manifest']))}", soft_wrap=True)
