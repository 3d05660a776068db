"""A Prefect stack on this machine: server, pool, deployments, two workers. Started by `up`, ended by `down`.

What was started is written down with each process's start time, so that `down` ends exactly that: a number that
was given to another process since is not touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import monotonic, sleep
from uuid import uuid4

import psutil
from filelock import FileLock, Timeout
from platformdirs import user_state_path

from flows.server.access import client_settings, make_secret, read_secret, server_settings
from pnp_core.errors import PnpError, UsageError

POOL = "pnp"
PORT = 4200
QUEUES = {"cpu": 2, "gpu": 1}
"""Work queue -> flow runs at a time of its worker."""
STARTING = 180.0
"""Seconds a server may take to answer, on a slow machine."""
ENDING = 30.0
"""Seconds a process has to end by itself."""
HEARTBEAT = 30
"""Seconds between signs of life of a flow run."""


NOTIFY = "PNP_OVSS_NOTIFY"
"""Variable that hands the webhook's URL on: arguments of a command are seen by everybody."""
MARK = "PNP_OVSS_STACK"
"""Variable of the environment by which the stack knows its own."""
PRIVATE_PAGES = {"PREFECT_SERVER_UI_V2_ENABLED": "false", "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false"}
"""Prefect's new pages ask a company that counts visitors for its settings, whether or not that is switched off."""
RESTART = "`pnp-ovss down`, then `pnp-ovss up` (runs under way stop; the same run again continues)"


class StackError(PnpError):
    """The stack cannot be started or is not there."""


@dataclass(frozen=True)
class Started:
    """A process of the stack."""

    pid: int
    born: float

    @classmethod
    def of(cls, pid: int) -> Started:
        """A process that runs."""
        return cls(pid, psutil.Process(pid).create_time())


@dataclass
class Stack:
    """What runs, and where its files lie.

    Attributes:
        mark: in the environment of all its processes, and of theirs.
        started: `server`, `cpu`, `gpu` -> its process.
        deployed: digest of the deployments on the server.
    """

    home: Path
    port: int
    mark: str
    started: dict[str, Started] = field(default_factory=dict)
    deployed: str = ""

    @property
    def api(self) -> str:
        """Address of the server's API."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def ui(self) -> str:
        """Address of the pages for people."""
        return f"http://127.0.0.1:{self.port}"

    def log(self, name: str) -> Path:
        """Where a process writes what it has to say."""
        return self.home / f"{name}.log"

    def process(self, name: str) -> psutil.Process | None:
        """A process of the stack, None when it has ended. Its number may be another's by now, its mark is not."""
        try:
            process = psutil.Process(self.started[name].pid)
            alive = process.status() != psutil.STATUS_ZOMBIE
        except (KeyError, psutil.Error):
            return None
        return process if alive and _mark_of(process) == self.mark else None

    def running(self, name: str) -> bool:
        """Whether a process of the stack is alive."""
        return self.process(name) is not None

    @property
    def secret_file(self) -> Path:
        """What is asked for by the server's pages and its API."""
        return self.home / "secret"

    @property
    def secret(self) -> str:
        """Of the server; raises StackError when it has none."""
        if secret := read_secret(self.secret_file):
            return secret
        raise StackError(f"'{self.secret_file}' is missing, as in a stack that an older version started: {RESTART}")

    @property
    def environment(self) -> dict[str, str]:
        """Of all its processes: an own Prefect home, this server, no telemetry."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
            "PREFECT_HOME": str(self.home / "prefect"),
            **client_settings(self.api, self.secret),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            MARK: self.mark,
        }

    def members(self) -> list[psutil.Process]:
        """All processes that have come of it, those of a worker that was killed too."""
        return [process for process in psutil.process_iter() if _mark_of(process) == self.mark]

    def save(self) -> None:
        """Write down what runs."""
        self.home.mkdir(parents=True, exist_ok=True)
        record = {name: getattr(self, name) for name in ("port", "mark", "deployed")}
        record["started"] = {name: asdict(process) for name, process in self.started.items()}
        temporary = _record(self.home).with_suffix(".tmp")
        temporary.write_text(json.dumps(record, indent=1))
        temporary.replace(_record(self.home))


def prefect_file() -> Path:
    """The deployments: beside the code where installed, in the checkout otherwise."""
    here = Path(__file__).parents[1]
    packaged = here / "_prefect.yaml"
    return packaged if packaged.exists() else here.parent / "prefect.yaml"


def _digest(file: Path) -> str:
    return hashlib.sha256(version("pnp-ovss").encode() + file.read_bytes()).hexdigest()


def default_home() -> Path:
    """Folder of the stack: `PNP_OVSS_HOME`, or the user's folder for state."""
    given = os.environ.get("PNP_OVSS_HOME")
    return Path(given).expanduser().absolute() if given else user_state_path("pnp-ovss")


def _record(home: Path) -> Path:
    return home / "stack.json"


def load_stack(home: Path) -> Stack | None:
    """The stack of a folder, None when none was started."""
    try:
        record = json.loads(_record(home).read_text())
        started = {name: Started(**s) for name, s in record["started"].items()}
        return Stack(home, int(record["port"]), record["mark"], started, record["deployed"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StackError(f"'{_record(home)}' cannot be read ({error}); delete it") from error


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One `up` or `down` at a time."""
    home.mkdir(0o700, parents=True, exist_ok=True)  # its database holds what runs were given
    home.chmod(0o700)  # a version before left it open
    try:
        with FileLock(home / "stack.lock", timeout=5):
            yield
    except Timeout as error:
        raise StackError(f"another `up` or `down` is at work in '{home}'") from error


def up(home: Path, port: int | None, notify: str | None, tell: Callable[[str], None]) -> Stack:
    """Start what does not run yet: the server, the deployments on it, a worker per queue.

    Args:
        port: of the server; the one it had before when None.
        notify: URL of a webhook for failures.
        tell: called with what happens, for people.

    Raises:
        StackError: the port is taken, or something does not start; names its log.
    """
    with _alone(home):
        stack = load_stack(home) or Stack(home, port or PORT, uuid4().hex)
        if port not in (None, stack.port):
            if stack.members():
                raise UsageError(f"a stack runs on port {stack.port}; `pnp-ovss down` first, or leave out --port")
            stack.port = port
        _close(stack)
        stack.save()  # before anything runs, so that nothing runs that is not known
        if not stack.running("server"):
            _start_server(stack, tell)
        deployments = _digest(prefect_file())
        if notify or stack.deployed != deployments:
            tell("deploying")
            _run(stack, "deploy", {NOTIFY: notify} if notify else {}, "-m", "flows.server.deploying")
            stack.deployed = deployments
            stack.save()
        for queue, limit in QUEUES.items():
            if not stack.running(queue):
                tell(f"starting the worker of queue {queue}")
                arguments = ("worker", "start", "--pool", POOL, "--work-queue", queue, "--limit", str(limit))
                _start(stack, queue, "-m", "prefect", *arguments, "--name", f"pnp-{queue}")
        for queue in QUEUES:
            _wait_for_worker(stack, queue)
        return stack


def down(home: Path, tell: Callable[[str], None]) -> list[str]:
    """End what `up` has started, and all that has come of it.

    Returns:
        Names of the processes that were running.
    """
    with _alone(home):
        stack = load_stack(home)
        if stack is None:
            return []
        ended = [name for name in stack.started if stack.running(name)]
        for name in (*QUEUES, "server"):  # workers first, so that they can still say good-bye
            if process := stack.process(name):
                tell(f"ending {name}")
                _ask(process.terminate)
                psutil.wait_procs([process], timeout=ENDING)
        _end_all(stack)
        stack.started = {}
        stack.save()
        return ended


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except psutil.Error:  # ended meanwhile, or of somebody else
        return None


def _ask(what: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        what()


def _end_all(stack: Stack) -> None:
    """End what is left: asked first, then killed; and who was born meanwhile."""
    for attempt in range(4):
        left = stack.members()
        for process in left:
            _ask(process.kill if attempt else process.terminate)
        psutil.wait_procs(left, timeout=10)


def _close(stack: Stack) -> None:
    """Make the stack's secret; raises StackError when its server was started without, by an older version."""
    if not stack.secret_file.exists() and stack.members():
        raise StackError(f"the stack was started without a secret, so any web page can use its server: {RESTART}")
    make_secret(stack.secret_file)


def _start_server(stack: Stack, tell: Callable[[str], None]) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", stack.port))
        except OSError as error:
            raise StackError(f"port {stack.port} is in use; choose another with --port") from error
    tell(f"starting the server on {stack.ui}")
    arguments = ("server", "start", "--host", "127.0.0.1", "--port", str(stack.port))
    own_pages = (stack.ui, f"http://localhost:{stack.port}")
    variables = {**server_settings(stack.secret, own_pages), **PRIVATE_PAGES}
    _start(stack, "server", "-m", "prefect", *arguments, variables=variables)
    deadline = monotonic() + STARTING
    while not _healthy(stack.api):
        if not stack.running("server") or monotonic() > deadline:
            raise StackError(f"the server did not start: {_last_words(stack.log('server'))}")
        sleep(0.3)


def _wait_for_worker(stack: Stack, queue: str) -> None:
    """Until a worker has asked the server for runs since it was started."""
    born = datetime.fromtimestamp(stack.started[queue].born, UTC)
    deadline = monotonic() + STARTING
    while not ((seen := _last_asked(stack, queue)) and seen >= born):
        if not stack.running(queue) or monotonic() > deadline:
            raise StackError(f"the worker of queue {queue} did not start: {_last_words(stack.log(queue))}")
        sleep(0.3)


def _last_asked(stack: Stack, queue: str) -> datetime | None:
    """When a worker looked into a queue last; None also when the server is too busy to say."""
    import httpx  # here, since most commands only ask whether a stack runs

    user, _, password = stack.secret.partition(":")
    try:
        with httpx.Client(auth=(user, password), trust_env=False, timeout=10) as client:  # no proxy is told the secret
            answer = client.get(f"{stack.api}/work_pools/{POOL}/queues/{queue}")
            if answer.status_code == httpx.codes.UNAUTHORIZED:
                raise StackError(f"the server does not take the secret in '{stack.secret_file}': {RESTART}")
            asked = answer.raise_for_status().json()["last_polled"]
    except httpx.HTTPError:
        return None
    return datetime.fromisoformat(asked) if asked else None


def _healthy(api: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{api}/health", trust_env=False, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _start(stack: Stack, name: str, *arguments: str, variables: dict[str, str] | None = None) -> None:
    """Start a Python process of its own session, so that a Ctrl-C meant for another command spares it."""
    stack.home.mkdir(parents=True, exist_ok=True)
    with stack.log(name).open("ab") as log:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, *arguments],
            env=stack.environment | (variables or {}),
            cwd=stack.home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    stack.started[name] = Started.of(process.pid)
    stack.save()


def _run(stack: Stack, name: str, variables: dict[str, str], *arguments: str) -> None:
    """Run a Python process to its end."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, *arguments],
        env=stack.environment | variables,
        cwd=stack.home,
        capture_output=True,
        text=True,
        check=False,
    )
    stack.log(name).write_text(done.stdout + done.stderr)
    if done.returncode:
        raise StackError(f"{name} failed: {_last_words(stack.log(name))}")


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'no word'} (see {log})"


def use_stack() -> None:
    """Talk to the stack of this machine, unless the user has named a server. Before Prefect is imported.

    Address and secret go together: the stack is sent no other server's secret.
    """
    if os.environ.get("PREFECT_API_URL"):
        unlock_stack()
        return
    stack = load_stack(default_home())
    if stack and stack.running("server"):
        os.environ.update(client_settings(stack.api, stack.secret))


def unlock_stack() -> None:
    """Add the secret where the user has named this machine's stack and none; no other server is sent it."""
    named, secret = (os.environ.get(f"PREFECT_API_{name}") for name in ("URL", "AUTH_STRING"))
    if named and not secret:
        stack = load_stack(default_home())
        if stack and stack.api == named.rstrip("/") and stack.running("server"):
            os.environ.update(client_settings(stack.api, stack.secret))
