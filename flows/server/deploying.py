"""What this project needs on a Prefect server: the pool, the deployments of prefect.yaml, one automation.

Run as `python -m flows.server.deploying` by `pnp-ovss deploy` and `up`: Prefect reads its settings when it is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta

from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict
from prefect.workers.process import ProcessWorker
from pydantic import SecretStr

from flows.server.stack import HEARTBEAT, NOTIFY, POOL, prefect_file
from pnp_core.frozen import merge

LOST = "pnp-ovss: flow runs without a sign of life have crashed"
MISSED = 3
"""Heartbeats a flow run may miss."""
TELL = "pnp-ovss: tell of runs that failed"
WEBHOOK = "pnp-ovss-failures"
MESSAGE = """{
  "flow": {{ flow.name | tojson }},
  "run": {{ flow_run.name | tojson }},
  "state": {{ flow_run.state.name | tojson }},
  "message": {{ flow_run.state.message | tojson }},
  "url": {{ flow_run | ui_url | tojson }}
}"""
"""What the webhook is sent, JSON; a template of Prefect's automations."""


def create_pool() -> None:
    """Make a pool of processes, unless a pool of that name is there, of whatever type."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(POOL)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))


OURS = {"prefect.resource.id": "prefect.tag.pnp-ovss", "prefect.resource.role": "tag"}
"""Runs of this project's deployments; whoever else uses the server is left alone."""


def replace_automation(automation: Automation) -> None:
    """Make an automation, or bring it up to date."""
    with suppress(ValueError):
        Automation.read(name=automation.name).delete()
    automation.create()


def create_automation() -> None:
    """Have flow runs marked as crashed whose process and worker vanished together: nobody else would."""
    ended = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    replace_automation(
        Automation(
            name=LOST,
            description="Without it a run whose machine was lost would count as running for ever.",
            trigger=EventTrigger(
                after={"prefect.flow-run.heartbeat"},
                expect={"prefect.flow-run.heartbeat", *ended},
                match={"prefect.resource.id": ["prefect.flow-run.*"]},
                match_related=OURS,
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=MISSED * HEARTBEAT),
            ),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message="no sign of life of its process")],
        )
    )


def create_notification(url: str) -> None:
    """Have a URL called (POST, JSON) when a run of this project fails or crashes."""
    webhook = Webhook(method="POST", url=SecretStr(url), headers=SecretDict({"Content-Type": "application/json"}))
    block = webhook.save(WEBHOOK, overwrite=True)
    replace_automation(
        Automation(
            name=TELL,
            description=f"Calls the webhook block {WEBHOOK}.",
            trigger=EventTrigger(
                expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related=OURS,
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=[CallWebhook(block_document_id=block, payload=MESSAGE)],
        )
    )


class Deployed:
    """What people have set in deployments that are there: schedules, and values of the configuration."""

    def __init__(self) -> None:
        with get_client(sync_client=True) as client:
            self._before = {deployment.id: deployment for deployment in client.read_deployments()}

    def keep(self) -> None:
        """Set it again: deploying replaces both by what prefect.yaml says."""
        with get_client(sync_client=True) as client:
            for now in client.read_deployments():
                if before := self._before.get(now.id):
                    keys = {"schedule", "active", "max_scheduled_runs", "parameters", "slug"}
                    schedules = [s.model_dump(mode="json", include=keys) for s in before.schedules]
                    parameters = merge(now.parameters or {}, before.parameters or {})
                    change = {"parameters": parameters, "schedules": schedules}
                    client.request("PATCH", "/deployments/{id}", path_params={"id": now.id}, json=change)


def main(notify: str | None = None) -> int:
    """Make what is missing, and bring the deployments up to date."""
    create_pool()
    create_automation()
    if notify:
        create_notification(notify)
    deployed = Deployed()
    command = ["-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(prefect_file())]
    code = subprocess.run([sys.executable, *command], check=False).returncode  # noqa: S603
    deployed.keep()
    return code


if __name__ == "__main__":
    sys.exit(main(os.environ.get(NOTIFY)))
