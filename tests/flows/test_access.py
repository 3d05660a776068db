"""Who is given the secret of a server, and who is not."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import httpx
import psutil
import pytest

from flows.server.access import make_secret, read_secret, without_proxy
from flows.server.stack import MARK, Stack, StackError, Started, up, use_stack
from pnp_core.errors import PnpError
from tests.processes import wait_for

NAMES = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED", "no_proxy", "NO_PROXY")


def test_secret_is_for_the_users_eyes_only_and_made_once(tmp_path):
    file = tmp_path / "secret"
    before = os.umask(0)
    try:
        make_secret(file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = read_secret(file)
    file.chmod(0o644)
    make_secret(file)
    assert read_secret(file) == secret
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [f.name for f in tmp_path.iterdir()] == ["secret"]


def test_secrets_differ_and_cannot_be_guessed(tmp_path):
    for name in "ab":
        make_secret(tmp_path / name)
    user, _, password = (read_secret(tmp_path / "a") or "").partition(":")
    assert (user, len(password)) == ("pnp-ovss", 43)
    assert read_secret(tmp_path / "a") != read_secret(tmp_path / "b")


def test_empty_file_is_no_secret(tmp_path):
    (tmp_path / "secret").touch()
    with pytest.raises(PnpError, match=r"secret' holds no secret: `pnp-ovss down`, delete the file"):
        make_secret(tmp_path / "secret")


@pytest.fixture
def stack(tmp_path, monkeypatch) -> Iterator[Stack]:
    """Of a folder, with a process that bears its mark; the variables of a user who has named nothing."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what the test sets goes with it
        monkeypatch.delenv(name)
    monkeypatch.setenv("PNP_OVSS_HOME", str(tmp_path))
    mark = uuid4().hex
    process = subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: mark})
    running = Stack(tmp_path, 4299, mark, {"server": Started.of(process.pid)})
    wait_for(lambda: running.process("server"), "the process has its environment")  # which exec gives it
    running.save()
    make_secret(running.secret_file)
    yield running
    process.kill()
    process.wait()


def test_commands_are_given_address_and_secret_of_the_stack(stack, monkeypatch):
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "of:another server")
    monkeypatch.setenv("NO_PROXY", "example.org")
    use_stack()
    found = [os.environ.get(name) for name in NAMES]
    assert found == [
        "http://127.0.0.1:4299/api",
        stack.secret,
        "true",
        "example.org,127.0.0.1,localhost,::1",
        "example.org",
    ]


@pytest.mark.parametrize(
    "named", ["http://127.0.0.1:4300/api", "https://127.0.0.1:4299/api", "http://evil.example/api"]
)
def test_another_server_is_not_sent_the_secret(stack, monkeypatch, named):
    monkeypatch.setenv("PREFECT_API_URL", named)
    use_stack()
    assert [os.environ.get(name) for name in NAMES] == [named, None, None, None, None]


def test_who_names_the_stack_is_given_its_secret_unless_another_is_set(stack, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", f"{stack.api}/")
    use_stack()
    assert os.environ["PREFECT_API_AUTH_STRING"] == stack.secret
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "my:own")
    use_stack()
    assert os.environ["PREFECT_API_AUTH_STRING"] == "my:own"


def test_address_of_a_stack_that_has_ended_is_not_sent_the_secret(stack, monkeypatch):
    process = stack.process("server")
    process.kill()
    process.wait()
    monkeypatch.setenv("PREFECT_API_URL", stack.api)
    use_stack()
    assert "PREFECT_API_AUTH_STRING" not in os.environ


def test_stack_that_an_older_version_started_is_not_used_and_not_added_to(stack, tmp_path):
    stack.secret_file.unlink()
    with pytest.raises(
        StackError, match=r"secret' is missing, as in a stack that an older version started: `pnp-ovss down`"
    ):
        use_stack()
    with pytest.raises(StackError, match="any web page can use its server: `pnp-ovss down`, then `pnp-ovss up`"):
        up(tmp_path, None, None, print)
    assert not stack.secret_file.exists()
    assert stack.running("server")


PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture
def proxy() -> Iterator[socket.socket]:
    """A proxy of this machine that nobody may call."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest.mark.ops
def test_server_of_a_single_command_refuses_whoever_has_no_secret_and_no_proxy_hears_of_it(tmp_path, proxy):
    """A cluster's workers are given their tasks by way of a server, which a command starts where none is named."""
    command = [sys.executable, "-m", "flows.cli", "eval", "scenes", "--limit", "24", "--out", str(tmp_path / "run")]
    command += ["-p", "dispatch={mode: dask, workers: 1}"]
    proxies = dict.fromkeys(PROXIES, f"http://127.0.0.1:{proxy.getsockname()[1]}")
    environment = {**os.environ, **proxies, "PREFECT_API_URL": "", "NO_PROXY": "", "no_proxy": ""}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        server = wait_for_server(psutil.Process(process.pid))
        arguments = server.cmdline()
        secret = server.environ()["PREFECT_SERVER_API_AUTH_STRING"]
        address = f"http://127.0.0.1:{arguments[arguments.index('--port') + 1]}/api"
        wait_for_health(address)
        user, _, password = secret.partition(":")
        with httpx.Client(base_url=address, timeout=60) as nobody:
            assert nobody.get("/admin/version").status_code == 401
            assert nobody.get("/csrf-token?client=me").status_code == 401
            assert nobody.post("/flow_runs/filter", json={}).status_code == 403
            assert nobody.get("/admin/version", auth=(user, password)).status_code == 200
        all_of_it = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert not any(password in argument for each in all_of_it for argument in each.cmdline())
        assert process.poll() is None, "ended before it was looked at"
        said = process.communicate(timeout=300)[1]
    finally:
        process.kill()
    assert process.returncode == 0, said


def wait_for_server(command: psutil.Process) -> psutil.Process:
    """The server that a command starts."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for each in command.children(recursive=True):
            if "uvicorn" in each.cmdline() or "server" in each.cmdline():
                return each
        time.sleep(0.05)
    raise TimeoutError("no server was started")


def wait_for_health(address: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise TimeoutError("the server does not answer")


@pytest.mark.parametrize("user_names", ["", "example.org, 127.0.0.1"])
def test_this_machine_is_added_to_what_the_user_keeps_from_a_proxy(monkeypatch, user_names):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", user_names)
    names = without_proxy()["no_proxy"].split(",")
    assert sorted(names) == sorted({*filter(None, user_names.split(", ")), "127.0.0.1", "localhost", "::1"})


def test_user_who_wants_no_proxy_at_all_gets_none(monkeypatch):
    """With more names behind it `*` would be one name among others to some clients."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody is there
    monkeypatch.setenv("no_proxy", "example.org, *")
    assert without_proxy() == {"no_proxy": "*"}
    monkeypatch.setenv("no_proxy", without_proxy()["no_proxy"])
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        assert httpx.head(f"http://127.0.0.1:{running.server_address[1]}/").status_code == 200
        running.shutdown()
