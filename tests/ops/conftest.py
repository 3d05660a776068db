"""A real stack: server, pool, worker processes on 127.0.0.1, started and ended by `pnp-ovss up` and `down`."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from PIL import Image
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.parameters import parse_parameters
from flows.server.stack import Stack, load_stack

COMMAND = [sys.executable, "-m", "flows.cli"]


class Webhook:
    """An address of this machine that keeps what it is sent."""

    def __init__(self) -> None:
        received: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        self.received, self.url = received, f"http://127.0.0.1:{server.server_port}/failures"


class RealStack:
    """The stack under test, and commands that use it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.failures = Webhook()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        own = {"PNP_OVSS_HOME": str(home), "PNP_OVSS_CONFIG": f"{home}-config.yaml", "HOME": f"{home}-user"}
        self.environment = {**kept, **own, "HF_HUB_OFFLINE": "1"}

    def call(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        done = subprocess.run(
            [*COMMAND, *arguments], env=self.environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command that goes on beside the test."""
        return subprocess.Popen(
            [*COMMAND, *arguments], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def up(self) -> None:
        """Start what does not run."""
        new = [] if (self.home / "stack.json").exists() else ["--notify", self.failures.url]
        self.call("up", "--port", str(self.port), *new)

    @property
    def state(self) -> Stack:
        """What is written down of it."""
        stack = load_stack(self.home)
        assert stack
        return stack

    def processes_of(self, run: str) -> list[psutil.Process]:
        """Processes that execute a flow run."""
        return [p for p in self.state.members() if p.environ().get("PREFECT__FLOW_RUN_ID") == run]

    def logs(self) -> str:
        """The last of what its processes said."""
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.home.glob("*.log")))


class Beside:
    """A command that runs beside other tests.

    Attributes:
        memory: resident memory of the driver, in bytes, when so many shards of a stage were complete.
        happened: what `after_first` returned, None when nothing was done.
    """

    def __init__(
        self, stack: RealStack, out: Path, *arguments: str, after_first: Callable[[psutil.Process], Any] | None = None
    ) -> None:
        """Start it; `after_first` is what is done to it when the first shard has its salience."""
        environment = {**stack.environment, "PREFECT_API_URL": stack.state.api, "OMP_NUM_THREADS": "1"}
        command = [*COMMAND, *arguments, "--out", str(out), "--json"]
        self.out, self._after_first = out, after_first
        self.happened: Any = None
        self.memory: dict[tuple[str, int], int] = {}
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

        self._watcher = Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        """Note resident memory, in bytes, whenever another shard is complete."""
        process = psutil.Process(self._process.pid)
        while self._process.returncode is None:
            for stage in ("salience", "masks"):
                with contextlib.suppress(psutil.Error):
                    shards = len(list(self.out.glob(f"{stage}/*/*.done.json")))
                    if shards and self._after_first:
                        meanwhile, self._after_first = self._after_first, None
                        self.happened = meanwhile(process)
                    self.memory.setdefault((stage, shards), process.memory_info().rss)
            time.sleep(0.02)

    def finish(self) -> Path:
        """Wait for it; returns its run folder."""
        _, said = self._process.communicate(timeout=600)
        assert self._process.returncode == 0, said
        return self.out


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStack]:
    """Started once for all tests; afterwards no process may be left."""
    real = RealStack(tmp_path_factory.mktemp("stack"))
    try:
        real.up()
        state = real.state
        yield real
    finally:
        real.call("down")
    assert state.members() == []
    assert real.state.started == {}


@pytest.fixture
def client(stack: RealStack) -> Iterator[SyncPrefectClient]:
    """Of the stack's server."""
    settings = {PREFECT_API_URL: stack.state.api, PREFECT_API_AUTH_STRING: stack.state.secret}
    with temporary_settings(settings), get_client(sync_client=True) as opened:
        yield opened


def records(out: Path, stage: str) -> dict[str, tuple[int, int]]:
    """Completion records of a stage, with what changes when a file is written again."""
    found = sorted((out / stage).glob("*/*.done.json"))
    return {f.name: (f.stat().st_ino, f.stat().st_mtime_ns) for f in found}


def last_json(text: str) -> dict[str, Any]:
    """The object a command printed last."""
    return json.loads(text.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def slow_undisturbed(stack: RealStack, tmp_path_factory: pytest.TempPathFactory) -> Beside:
    """The run that the others are killed in, inline and left alone."""
    from tests.ops.test_operations import SLOW

    folder = tmp_path_factory.mktemp("slow")
    values: dict[str, Any] = parse_parameters(SLOW)
    del values["dispatch"]
    (folder / "slow.yaml").write_text(yaml.safe_dump(values))
    return Beside(stack, folder / "run", "eval", "scenes", "--config", str(folder / "slow.yaml"))


@pytest.fixture(scope="session")
def many_images(stack: RealStack, tmp_path_factory: pytest.TempPathFactory) -> Beside:
    """240 images of 1.4 MB in 30 shards. One pass and no CRF, which take time but keep nothing."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "in").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for number in range(240):
        image = Image.fromarray(np.roll(noise, number, axis=1)).resize((800, 600))
        image.save(folder / "in" / f"{number:03d}.jpg")
    values: dict[str, Any] = {"images_per_shard": 8, "runtime": {"threads": 1}, "masks": {"crf": {"name": "off"}}}
    values["salience"] = {"dropout": {"iterations": 1}, "candidates": {"source": "vocabulary"}}
    (folder / "many.yaml").write_text(yaml.safe_dump(values))
    arguments = ["label", str(folder / "in"), "--classes", "heart,star", "--preset", "tiny"]
    return Beside(stack, folder / "run", *arguments, "--config", str(folder / "many.yaml"))


@pytest.fixture(scope="session")
def on_dask(stack: RealStack, tmp_path_factory: pytest.TempPathFactory) -> Beside:
    """The small run, on a Dask cluster of two processes, one of which is killed."""
    folder = tmp_path_factory.mktemp("dask")
    values = {"limit": 12, "shards": 6, "runtime": {"threads": 1}, "dispatch": {"mode": "dask", "workers": 2}}
    (folder / "dask.yaml").write_text(yaml.safe_dump(values))
    arguments = ["eval", "scenes", "--config", str(folder / "dask.yaml")]
    return Beside(stack, folder / "run", *arguments, after_first=kill_dask_worker)


def kill_dask_worker(driver: psutil.Process) -> int:
    """One of the processes of a cluster that a run has made for itself."""
    workers = [p for p in driver.children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
    workers[0].kill()
    return len(workers)
