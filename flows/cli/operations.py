"""Commands that operate Prefect: up, down, deploy, run."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from flows.cli.options import DebugOption, JsonOption
from flows.cli.running import fail, one_line_errors, quiet_prefect
from pnp_core.errors import PnpError, UsageError
from pnp_core.text.visible import visible, visible_json


def _tell(text: str) -> None:
    from flows.cli.console import errors, shown

    errors.print(shown(text), style="dim", soft_wrap=True, highlight=False)


NotifyOption = Annotated[
    str | None, typer.Option(metavar="URL", help="Webhook to call (POST, JSON) when a run fails or crashes.")
]


def _check_webhook(url: str | None) -> None:
    if url is not None and not url.startswith(("http://", "https://")):
        raise UsageError(f"--notify {url}: a webhook is an address that begins with https:// or http://")


def up(
    port: Annotated[
        int | None, typer.Option(help="Of the server, on 127.0.0.1; 4200, or what it was before.", min=1, max=65535)
    ] = None,
    notify: NotifyOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Start a Prefect stack on this machine: server, deployments, a worker for CPU and one for GPU work.

    Run it again and it starts what is missing. Pages and API ask for a secret, which it leaves in a file. Its files
    are in PNP_OVSS_HOME, by default in the user's folder for state; what runs is ended by `down`.
    """
    with one_line_errors(debug):
        _check_webhook(notify)
        from flows.server.stack import QUEUES, default_home
        from flows.server.stack import up as start

        stack = start(default_home(), port, notify, _tell)
    print(f"runs and their results  {stack.ui}", flush=True)
    print(f"log in there with       the line in {visible(str(stack.secret_file))}")
    print(f"PREFECT_API_URL         {stack.api}")
    print("PREFECT_API_AUTH_STRING the same line")
    print(f"logs                    {visible(str(stack.home))}/*.log")
    print("try                     pnp-ovss run eval-scenes --watch")
    print("end                     pnp-ovss down", flush=True)
    if as_json:
        places = {"ui": stack.ui, "api": stack.api, "home": str(stack.home), "secret_file": str(stack.secret_file)}
        print(visible_json({**places, "queues": list(QUEUES)}), flush=True)


def down(debug: DebugOption = False) -> None:
    """End what `up` has started, and nothing else. Runs that are under way stop; the same run again continues."""
    with one_line_errors(debug):
        from flows.server.stack import default_home
        from flows.server.stack import down as end

        ended = end(default_home(), _tell)
    print(f"ended: {', '.join(ended)}" if ended else "nothing was running", flush=True)


def deploy(notify: NotifyOption = None, debug: DebugOption = False) -> None:
    """Make pool, queues, deployments and automation on the server of PREFECT_API_URL, or bring them up to date."""
    quiet_prefect(debug)
    with one_line_errors(debug):
        _check_webhook(notify)
        from flows.server.stack import use_stack

        use_stack()
        import subprocess
        import sys

        from flows.server.deployment_runs import require_access
        from flows.server.stack import NOTIFY

        _tell(f"deploying to {require_access()}")
        variables = {**os.environ, **({NOTIFY: notify} if notify else {})}
        done = subprocess.run([sys.executable, "-m", "flows.server.deploying"], env=variables, check=False)
    raise typer.Exit(done.returncode)


def run(
    name: Annotated[
        str, typer.Argument(help="Deployment, such as eval-voc; with its flow's name where that is needed.")
    ],
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="KEY=VALUE",
            help="Value of the run's configuration, laid over the deployment's: -p data=/data/VOCdevkit "
            "-p method.layer=7 -p 'classes=\\[cat, dog]'. Can be given several times.",
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show progress until the run ends; exit code 1 if it fails.")
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Start a run of a deployment on the stack of `up`, or on the server of PREFECT_API_URL.

    Without -p out=... the run folder is runs/NAME here. Paths may be relative where the server is on this machine.
    """
    quiet_prefect(debug)
    with one_line_errors(debug):
        from flows.server.stack import use_stack

        use_stack()
        from flows.server.deployment_runs import require_access, start_run

        require_access()
        started = start_run(name, parameter or [], os.getcwd())  # noqa: PTH109
        _tell(f"flow run '{started.name}' of {started.deployment}: {started.url}")
        if started.out:
            _tell(f"run folder {started.out}")
        ended: Any = _watch(started) if watch else None
    if as_json:
        print(visible_json(started.as_json() | {"state": ended and ended.name}), flush=True)
    if ended is not None and not ended.is_completed():
        fail(
            PnpError(f"flow run '{started.name}' ended as {ended.name}: {' '.join((ended.message or '').split())}"),
            False,
        )


def _watch(started: Any) -> Any:
    """Show progress until the run ends; Ctrl-C ends the watching only."""
    from flows.cli.console import errors, shown
    from flows.cli.watching import watch_run

    try:
        state = watch_run(started)
    except KeyboardInterrupt:
        errors.print(f"no longer watching; the run goes on: {shown(started.url)}", soft_wrap=True)
        raise typer.Exit(130) from None
    if state.is_completed() and started.out:
        from flows.cli.watching import show_result

        show_result(started.out)
    return state
