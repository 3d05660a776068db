"""The other methods on real pictures with random weights of the published sizes: killed, on Dask, as a deployment."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.methods import make_weights, settings
from tests.artifacts import artifacts
from tests.ops.conftest import COMMAND, RealStack, records
from tests.processes import wait_for

pytestmark = pytest.mark.slow
SHARDS = 4
MEMBERS = ("naclip", "simzss")
METHODS = ("naclip", "car", "simzss", "classify", "ensemble")
ONE_CAPTION = ("a photo of a {}.",)


class Runs:
    """Runs of the methods on the VOC sample.

    Attributes:
        folder: of the undisturbed runs, under the methods' names.
    """

    def __init__(self, stack: RealStack, folder: Path, data: Path) -> None:
        self.stack, self.folder, self.data = stack, folder / "runs", data
        self.weights = folder / "weights"
        self.weights.mkdir()
        make_weights(self.weights)

    def config(self, method: str, **more: Any) -> Path:
        """A file with the settings of a method."""
        own = settings(method, self.weights, self.folder)
        if method == "ensemble":
            own = {"runs": [str(self.folder / member) for member in MEMBERS]}
        elif method == "classify":
            own |= {"min_area": 0.05}  # masks of random weights are in many pieces
        texts = {} if method == "ensemble" else {"templates": ONE_CAPTION}
        candidates = {"salience": {"candidates": {"fallback": "best"}}} if method == "ensemble" else {}
        values = {"limit": 8, "shards": SHARDS, "runtime": {"threads": 1}, "method": {"name": method, **own, **texts}}
        file = self.weights / f"{method}-{'-'.join(map(str, more))}.yaml"
        file.write_text(yaml.safe_dump({**values, **candidates, **more}))
        return file

    def command(self, out: Path, config: Path) -> list[str]:
        """The command that makes it."""
        return [*COMMAND, "eval", "voc21", "--data", str(self.data), "--config", str(config), "--out", str(out)]

    @property
    def environment(self) -> dict[str, str]:
        """On the server of the stack."""
        return {**self.stack.environment, "PREFECT_API_URL": self.stack.state.api, "OMP_NUM_THREADS": "1"}

    def make(self, out: Path, config: Path) -> dict[str, str]:
        """Run to the end; digests of what it leaves."""
        done = subprocess.run(
            self.command(out, config), env=self.environment, capture_output=True, text=True, timeout=1800, check=False
        )
        assert done.returncode == 0, done.stderr
        return artifacts(out)

    def killed(self, out: Path, config: Path) -> dict[str, tuple[int, int]]:
        """Kill it when a shard is complete; the records there are then."""
        process = subprocess.Popen(
            self.command(out, config), env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(lambda: records(out, "salience") or process.poll() is not None, "a first shard", 600)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        return records(out, "salience")


@pytest.fixture(scope="module")
def runs(stack: RealStack, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """With the undisturbed runs that others start from."""
    made = Runs(stack, tmp_path_factory.mktemp("full-size"), shared_data / "VOCdevkit")
    for method in METHODS:
        made.make(made.folder / method, made.config(method))
    return made


@pytest.mark.parametrize("method", METHODS)
def test_killed_run_resumes_and_equals_an_undisturbed_one(runs, tmp_path, method):
    config, out = runs.config(method), tmp_path / "killed"
    kept = runs.killed(out, config)
    assert 0 < len(kept) < SHARDS
    assert runs.make(out, config) == artifacts(runs.folder / method)
    assert kept.items() <= records(out, "salience").items(), "a finished shard was made again"


@pytest.mark.parametrize("method", METHODS)
def test_dask_gives_the_same_masks(runs, tmp_path, method):
    config = runs.config(method, dispatch={"mode": "dask", "workers": 2})
    assert runs.make(tmp_path / "dask", config) == artifacts(runs.folder / method)


@pytest.mark.parametrize("method", METHODS)
def test_deployment_gives_the_same_masks(runs, tmp_path, method):
    """`eval-voc`, which presets weights for PnP-OVSS, and hands salience to a worker."""
    out = tmp_path / "deployed"
    where = ("-p", f"data={runs.data}", "-p", f"out={out}", "-p", f"config_file={runs.config(method)}")
    runs.stack.call("run", "eval-voc", *where, "-p", f"method={method}", "--watch")
    assert artifacts(out) == artifacts(runs.folder / method)
