"""Shared fixtures: a tiny random-weight BLIP, drawn scenes, real photographs, one Prefect server."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before anything imports Prefect: its own home, no server of the user's, no telemetry.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="pnp-prefect-")
os.environ["PREFECT_API_URL"] = ""
# No data root of the user's either.
os.environ["PNP_OVSS_CONFIG"] = f"{tempfile.mkdtemp(prefix='pnp-config-')}/config.yaml"
os.environ.pop("PNP_OVSS_DATA", None)
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores, so one thread each
    os.environ["OMP_NUM_THREADS"] = "1"
# Images of containers forbid Python to keep bytecode; then each of the many processes started here would compile
# Prefect and torch anew, for longer than most tests take.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
import torch
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from pnp_core.methods.pnp.backbones import Backbone, load_backbone, locate_checkpoint
from pnp_core.methods.pnp.config import BackboneConfig
from tests.models import save_random_blip

settings.register_profile("pnp", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("pnp")

SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests begin first."""
    items.sort(key=lambda item: item.get_closest_marker("first") is None)


class _StackTogether(LoadFileScheduling):
    """With `--dist loadfile` the files that share the real stack go to one worker: two would start it twice."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/ops" if nodeid.startswith("tests/ops/") else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Another way to distribute tests."""
    return _StackTogether(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real samples of public datasets, which the repository does not carry."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real dataset samples (../shared/data) are not on this machine")
    return SHARED_DATA


@pytest.fixture
def user_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's configuration file, in a folder that is not there yet, for this test alone."""
    file = tmp_path / "configuration" / "config.yaml"
    monkeypatch.setenv("PNP_OVSS_CONFIG", str(file))
    return file


@pytest.fixture(scope="session")
def random_blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random-weight BLIP: 3 text layers, 2 heads, 6 x 6 patches of 8 pixels."""
    return save_random_blip(tmp_path_factory.mktemp("random-blip"))


@pytest.fixture(scope="session")
def backbone(random_blip: Path) -> Backbone:
    """The random-weight BLIP, loaded by the project's own loader."""
    config = BackboneConfig(checkpoint=str(random_blip), image_size=48)
    return load_backbone(config, locate_checkpoint(config), "cpu")


@pytest.fixture
def pixels() -> torch.Tensor:
    """Two pictures of normalised model pixels (2, 3, 48, 48)."""
    return torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """One real Prefect server for all flow tests; yields its address."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=300):
        yield PREFECT_API_URL.value()


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a finished evaluation of eight scenes with confidence; nobody may write to it."""
    from flows.pipelines.evaluation import evaluate
    from pnp_core.config import EvalConfig

    out = tmp_path_factory.mktemp("evaluated") / "run"
    values = {"limit": 8, "shards": 2, "salience": {"dropout": {"iterations": 2}}, "masks": {"confidence": True}}
    evaluate(EvalConfig.model_validate({"out": str(out), **values}))
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = os.environ.get("PNP_OVSS_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not chromium:
        pytest.skip("no Chromium on this machine: `apt-get install chromium`, or name one in PNP_OVSS_CHROMIUM")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()
