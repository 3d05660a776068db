"""Without a server a run is the same, in this process and without Prefect."""

import subprocess
import sys
import threading
import time

import pytest

from pnp_core.config import EvalConfig
from pnp_core.errors import UsageError
from pnp_core.stages.config import DispatchConfig
from tasks.runtime import StageTask
from tasks.time_limit import time_limit
from tests.artifacts import artifacts

AT_ONCE = DispatchConfig(backoff=0)


def test_a_run_leaves_the_same_bytes_with_and_without_prefect(tmp_path, prefect_server):
    from flows.evaluation import evaluate_dataset
    from flows.pipelines.evaluation import evaluate

    for name, run in {"prefect": evaluate_dataset, "plain": evaluate}.items():
        values = {"out": str(tmp_path / name), "limit": 4, "shards": 2, "runtime": {"threads": 1}}
        assert run(EvalConfig.model_validate(values)).labelled == 4
    assert artifacts(tmp_path / "plain") == artifacts(tmp_path / "prefect")


def failing(times: int, error: Exception) -> tuple[StageTask, list[int]]:
    calls: list[int] = []

    def work() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "done"

    return StageTask(work, "work", tries=AT_ONCE), calls


def test_what_may_pass_is_tried_again_as_often_as_the_configuration_says():
    task, calls = failing(2, OSError("a bad moment"))
    assert (task(), len(calls)) == ("done", 3)
    task, calls = failing(3, OSError("a bad moment"))
    with pytest.raises(OSError, match="a bad moment"):
        task()
    assert len(calls) == 3


def test_what_stays_wrong_is_tried_once():
    task, calls = failing(1, UsageError("no such class"))
    with pytest.raises(UsageError):
        task()
    assert len(calls) == 1


@pytest.mark.parametrize("thread", ["main", "another"])
def test_work_over_its_time_fails_though_it_catches_errors(thread):
    said: list[str] = []

    def work() -> None:
        try:
            with time_limit(0.2):
                for _ in range(500):
                    try:
                        time.sleep(0.01)
                    except Exception as error:
                        said.append(f"caught {error}")
        except TimeoutError as error:
            said.append(str(error))

    if thread == "main":
        work()
    else:
        other = threading.Thread(target=work)
        other.start()
        other.join()
    assert said == ["more than 0.2 s"]


LIGHT = {
    "help": ["--help"],
    "backbones": ["backbones"],
    "models": ["models"],
    "datasets": ["datasets"],
    "export": ["export", "RUN", "--to", "png", "--out", "OUT"],
    "verify": ["verify", "RUN"],
    "tables": ["tables", "RUN", "--out", "OUT"],
    "check": ["check", "scenes", "--data", "OUT"],
    "candidates": ["candidates", "FILE", "--dataset", "scenes"],
    "view": ["view", "RUN", "--no-open"],
    "config": ["config", "list"],
}
INTERRUPTED = """
def interrupt():
    while threading.active_count() < 3:  # this one, the main one, and the one that serves
        time.sleep(0.05)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
"""


@pytest.mark.parametrize("arguments", LIGHT.values(), ids=LIGHT)
def test_light_commands_import_neither_torch_nor_prefect(arguments, evaluated, tmp_path):
    places = {"RUN": str(evaluated), "OUT": str(tmp_path / "out"), "FILE": str(tmp_path / "candidates.json")}
    (tmp_path / "candidates.json").write_text('{"test-000000": ["heart"]}')
    code = (
        "import signal, sys, threading, time; from typer.testing import CliRunner; from flows.cli import app\n"
        f"{INTERRUPTED if arguments[0] == 'view' else ''}"
        f"print(CliRunner().invoke(app, {[places.get(a, a) for a in arguments]!r}).exit_code)\n"
        "print([name for name in ('torch', 'prefect', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    ended = {"view": "130", "check": "2"}.get(arguments[0], "0")  # scenes are drawn: there is no folder to check
    assert done.stdout.split("\n")[:2] == [ended, "[]"]
