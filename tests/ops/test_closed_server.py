"""The stack's server answers whoever holds its secret, and nobody else: no web page first of all."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from flows.cli import app
from flows.server.access import client_settings
from tests.ops.conftest import RealStack, last_json
from tests.processes import wait_for

pytestmark = pytest.mark.ops

OPEN = ["/health", "/ready"]
"""Paths of the API that Prefect leaves open: for probes; they say that it runs and nothing else."""

ATTACK = """async ({api, deployment, run}) => {
    run = JSON.stringify(run);
    const json = {"Content-Type": "application/json"}, guess = {Authorization: "Basic " + btoa("pnp-ovss:guess")};
    const create = `${api}/deployments/${deployment}/create_flow_run`;
    const requests = [
        [`${api}/deployments/filter`, {method: "POST", headers: json, body: "{}"}],
        [`${api}/admin/version`, {}],
        [`${api}/csrf-token?client=me`, {}],
        [create, {method: "POST", headers: json, body: run}],
        [create, {method: "POST", headers: {...json, ...guess}, body: run}],
        // No question is asked before these: no header that needs it, and an answer that the page cannot read.
        [create, {method: "POST", mode: "no-cors", credentials: "include", body: new Blob([run])}],
        [create, {method: "POST", mode: "no-cors", credentials: "include", body: run}],
        [`${api}/health`, {mode: "no-cors"}],
    ];
    const read = [];
    for (const [address, how] of requests) {
        try { read.push(await (await fetch(address, how)).text()); } catch (error) { read.push(String(error)); }
    }
    return read;
}"""
SOCKET = """address => new Promise(done => {
    const socket = new WebSocket(address, "prefect"), said = [];
    socket.onopen = () => socket.send(JSON.stringify({type: "auth", token: "pnp-ovss:guess"}));
    socket.onmessage = message => said.push(message.data);
    socket.onclose = closed => done([closed.code, said]);
})"""


@pytest.fixture(scope="module")
def foreign_page() -> Iterator[str]:
    """Address of a page of another origin."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!DOCTYPE html><title>another page</title>")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def deployment_of(client: SyncPrefectClient, name: str) -> str:
    wanted: Any = {"name": {"any_": [name]}}
    (found,) = client.read_deployments(deployment_filter=DeploymentFilter.model_validate(wanted))
    return str(found.id)


def attack(stack: RealStack, client: SyncPrefectClient, marker: Path) -> dict[str, Any]:
    """What a page is to try: to have a worker run a command of its own, which leaves a file."""
    parameters = {"config": {"dataset": "scenes", "out": str(marker.parent / "out")}}
    run = {"name": "attack", "parameters": parameters, "job_variables": {"command": f"touch {marker}"}}
    return {"api": stack.state.api, "deployment": deployment_of(client, "eval-scenes"), "run": run}


def test_page_of_another_origin_reads_nothing_and_starts_nothing(stack, browser, client, foreign_page, tmp_path):
    marker = tmp_path / "was-here"
    before = {run.id for run in client.read_flow_runs(limit=200)}
    page = browser.new_page()
    answers: list[tuple[str, str, int]] = []
    page.on("response", lambda r: answers.append((r.request.method, urlsplit(r.url).path.split("/")[-1], r.status)))
    page.goto(foreign_page)
    answers.clear()
    read = page.evaluate(ATTACK, attack(stack, client, marker))
    assert read[:5] == ["TypeError: Failed to fetch"] * 5
    assert read[5:] == ["", "", ""], "an answer that a page cannot read"
    assert ("GET", "health", 200) in answers, "the page does not reach the server, which proves nothing"
    assert answers.count(("POST", "create_flow_run", 403)) >= 2, answers
    assert {status for method, path, status in answers if path != "health"} <= {400, 401, 403}, answers
    for place in ("events/in", "events/out", "logs/out"):
        code, said = page.evaluate(SOCKET, f"ws://127.0.0.1:{stack.port}/api/{place}")
        assert (code, said) == (1008, []), place
    page.close()
    assert {run.id for run in client.read_flow_runs(limit=200)} - before == set()
    assert not marker.exists()


def test_same_requests_start_the_command_for_who_has_the_secret(stack, client, tmp_path):
    """What the page tried would have worked."""
    marker = tmp_path / "was-here"
    values = attack(stack, client, marker)
    client.request("POST", f"/deployments/{values['deployment']}/create_flow_run", json=values["run"])
    wait_for(marker.exists, "the command to be run")


def test_requests_without_the_secret_get_nothing(stack):
    """Whatever they say of where they come from: another Host is what a name that was rebound has."""
    answered = []
    with httpx.Client(base_url=stack.state.api, timeout=60) as nobody:
        paths = nobody.get(f"{stack.state.ui}/openapi.json").json()["paths"]
        for path, methods in paths.items():
            for method in {*methods} & {"get", "post", "put", "patch", "delete", "head"}:
                answer = nobody.request(method, path.replace("{", "").replace("}", ""))
                if answer.status_code not in ((401,) if method == "get" else (401, 403)):
                    answered.append(path)
        assert len(paths) > 100
        assert sorted(answered) == OPEN
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Authorization": "Basic eDp5"}):
            answer = nobody.get("/admin/version", headers=headers)
            assert answer.status_code == 401
            assert "access-control-allow-origin" not in answer.headers


def test_own_pages_may_call_the_server_and_others_may_not(stack):
    def asks(origin: str) -> int:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return httpx.options(f"{stack.state.api}/deployments/filter", headers=headers, timeout=60).status_code

    assert asks(stack.state.ui) == asks(f"http://localhost:{stack.port}") == 200
    assert asks("http://evil.example") == asks("null") == asks(f"http://127.0.0.1:{stack.port + 1}") == 400


def test_secret_is_in_one_file_for_the_user_and_in_no_arguments(stack):
    shown = stack.call("up", "--json")
    assert last_json(shown.stdout)["secret_file"] == str(stack.state.secret_file)
    assert str(stack.state.secret_file) in shown.stdout.partition("{")[0]
    assert stat.S_IMODE(stack.state.secret_file.stat().st_mode) == 0o600
    password = stack.state.secret.partition(":")[2]
    assert password not in shown.stdout + shown.stderr
    members = stack.state.members()
    assert len(members) >= 3
    assert not any(password in argument for process in members for argument in process.cmdline())
    files = [file for file in stack.home.rglob("*") if file.is_file() and file != stack.state.secret_file]
    assert (stack.home / "prefect/prefect.db") in files
    assert [file for file in files if password.encode() in file.read_bytes()] == []


def test_page_of_the_stack_asks_for_the_secret_and_shows_the_dashboard(stack, browser):
    context = browser.new_context()
    page = context.new_page()
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(urlsplit(request.url).hostname or ""))
    page.goto(f"{stack.state.ui}/deployments")
    secret = page.get_by_role("textbox").or_(page.locator("input[type=password]")).first
    secret.wait_for()
    assert "/login" in page.url
    assert "eval-scenes" not in page.inner_text("body")
    secret.fill(stack.state.secret)
    secret.press("Enter")
    page.get_by_text("eval-scenes").first.wait_for()
    page.goto(f"{stack.state.ui}/dashboard")
    page.get_by_text("Automations").first.wait_for()  # what else is there depends on the runs there were
    assert "/dashboard" in page.url
    context.close()
    assert asked <= {"127.0.0.1", ""}, "the pages ask somebody else"


def test_deploy_and_prefects_own_commands_work_with_it(stack):
    stack.call("deploy")
    environment = {**stack.environment, **client_settings(stack.state.api, stack.state.secret)}
    command = [sys.executable, "-m", "prefect", "deployment", "ls"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "eval-scenes" in done.stdout


@pytest.mark.parametrize("arguments", [["run", "eval-scenes"], ["deploy"], ["eval", "scenes", "--out", "run"]])
def test_wrong_secret_of_a_server_is_one_clear_line(stack, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", stack.state.api)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "some:other")
    with temporary_settings({PREFECT_API_URL: stack.state.api, PREFECT_API_AUTH_STRING: "some:other"}):
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    line = f"error: {stack.state.api} refuses: PREFECT_API_AUTH_STRING must be its user:password"
    assert result.stderr.strip().splitlines() == [line]
