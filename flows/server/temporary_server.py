"""A Prefect server for one command, when the user has none.

Prefect starts one by itself, but in the command's process group: a Ctrl-C reaches both, and the command then waits
a minute for a server that is gone; a command that is killed leaves its server behind. Here a guard stands between:
it holds the server in a session of its own, and ends it when the pipe to the command closes, for whatever reason.
Only the command can use it: the secret is made for it, and handed on in the environment, which nobody else can read.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

from flows.server.access import new_secret, server_settings, without_proxy

STARTING = 300.0
"""Seconds the server may take to answer on a slow, busy machine; one that ends is noticed at once."""
ENDING = 5.0
"""Seconds it has to end by itself."""


@contextmanager
def temporary_server() -> Iterator[None]:
    """Have a server while the block runs, unless the settings name one."""
    from prefect.settings import PREFECT_API_URL

    from flows.server.deployment_runs import require_access

    os.environ.update(without_proxy())  # also of a server of the user's on this machine
    if PREFECT_API_URL.value():
        require_access()
        yield
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    secret = new_secret()
    guard = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "flows.server.temporary_server", str(port)],
        env={**os.environ, **server_settings(secret)},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert guard.stdin
    try:
        api = f"http://127.0.0.1:{port}/api"
        _wait_for(api, guard)
        with _use(api, secret):
            yield
    finally:
        _flush()
        guard.stdin.close()
        guard.wait()


@contextmanager
def _use(api: str, secret: str) -> Iterator[None]:
    """Have Prefect's clients use a server while the block runs, those of Dask workers too."""
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_CLIENT_CSRF_SUPPORT_ENABLED,
        temporary_settings,
    )

    settings = {PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: secret, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: True}
    with temporary_settings(settings):
        yield


def _flush() -> None:
    """Send off what Prefect has still to say: without its server it would try for minutes."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=ENDING, at_exit=False)


def _wait_for(api: str, guard: subprocess.Popen[bytes]) -> None:
    import httpx

    from pnp_core.errors import PnpError

    deadline = monotonic() + STARTING
    with httpx.Client(trust_env=False, timeout=2) as client:  # one for all: each reads the certificates anew
        while guard.poll() is None and monotonic() < deadline:
            try:
                if client.get(f"{api}/health").status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            sleep(0.1)
    raise PnpError("Prefect's server does not start; `prefect server start` says why")


def guard_server(port: int) -> None:
    """Run a server until standard input closes."""
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_UI_ENABLED": "false"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(  # noqa: S603
        command, env={**os.environ, **quiet}, stdin=subprocess.DEVNULL, start_new_session=True
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        sys.stdin.buffer.read()
    finally:
        _end(server, signal.SIGTERM)


def _end(server: subprocess.Popen[bytes], first: signal.Signals) -> None:
    """End the server and what it has started."""
    for sign in (first, signal.SIGKILL):
        try:
            os.killpg(server.pid, sign)
            server.wait(ENDING)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


if __name__ == "__main__":
    guard_server(int(sys.argv[1]))
