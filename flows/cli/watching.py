"""Watching a flow run that works elsewhere."""

from __future__ import annotations

from time import monotonic, sleep
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import State
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from flows.cli.console import errors, shown
from flows.runs import StartedRun
from pnp_core.errors import OutputError
from pnp_core.store import RunFolder

POLL = 1.0
UNTAKEN = 45.0
"""Seconds after which people are told that no worker takes a run."""


def watch_run(started: StartedRun) -> State[Any]:
    """Show the progress of a flow run until it ends; returns its last state."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    begun, warned, said = monotonic(), False, ""
    with get_client(sync_client=True) as client, Progress(*columns, console=errors) as bars:
        tasks: dict[str, TaskID] = {}
        while True:
            state = client.read_flow_run(started.id).state
            assert state
            if state.name != said:
                said = state.name or ""
                bars.console.print(f"[dim]{shown(said.lower())}[/]")
            _show_progress(client, started, bars, tasks)
            if state.is_final():
                return state
            if state.is_scheduled() and not warned and monotonic() - begun > UNTAKEN:
                warned = True
                queue = shown(started.queue or "default")
                bars.console.print(f"[yellow]warning[/]: no worker takes it: is one running for queue '{queue}'?")
            sleep(POLL)


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
    """What a finished run says of itself, where its folder can be read from here."""
    console = Console()
    try:
        run = RunFolder(out)
        summary = (run.read_json("run.json") or {}).get("summary") or run.read_json("latest.json") or {}
    except OutputError:
        summary = {}
    if "labelled" in summary:
        pictures = summary.get("images", summary.get("pictures"))
        counts = f"{pictures} pictures: {summary['labelled']} labelled, {summary['quarantined']} quarantined"
        console.print(shown(counts))
    if summary.get("miou") is not None:
        console.print(f"mIoU           {summary['miou']:.4f}")
    if "masks" in summary:
        console.print(f"masks          {shown(str(summary['masks']))}", soft_wrap=True)
    if "manifest" in summary:
        console.print(f"manifest       {shown(out.rstrip('/'))}/{shown(str(summary['manifest']))}", soft_wrap=True)
