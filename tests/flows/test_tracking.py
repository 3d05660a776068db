"""`--track`: finished runs are recorded in MLflow's own local store, once each, and never at the cost of a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pnp_core.errors import UsageError
from pnp_core.tracking import open_tracker
from pnp_core.tracking.base import Tracked
from pnp_core.tracking.in_mlflow import LONGEST, named
from tasks.runtime import SilentObserver, observed_by
from tests.flows.commands import call, summary_of

mlflow = pytest.importorskip("mlflow")


def runs_in(store: Path) -> list:
    """All runs that MLflow has there."""
    client = mlflow.MlflowClient(f"sqlite:///{store}/mlflow.db")
    experiments = [e.experiment_id for e in client.search_experiments() if e.name == "pnp-ovss"]
    return client.search_runs(experiments)


def history(store: Path, run, metric: str) -> list[float]:
    client = mlflow.MlflowClient(f"sqlite:///{store}/mlflow.db")
    return [m.value for m in client.get_metric_history(run.info.run_id, metric)]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory) -> tuple[Path, Path, dict]:
    """An evaluation of two scenes, its store, and what it printed."""
    place = tmp_path_factory.mktemp("tracked")
    done = call(*command(place), "--track", f"mlflow:{place / 'store'}")
    return place, place / "store", summary_of(done)


def command(place: Path) -> list[str]:
    return ["eval", "scenes", "--limit", "2", "--shards", "1", "--out", str(place / "run"), "--json"]


def test_a_run_is_read_back_from_mlflow_as_it_was(tracked):
    place, store, said = tracked
    (run,) = runs_in(store)
    assert run.info.status == "FINISHED"
    record = json.loads((place / "run/run.json").read_text())
    assert run.data.metrics["miou"] == said["miou"]
    assert run.data.metrics["iou/background"] == said["per_class_iou"]["background"]
    assert (run.data.metrics["images"], run.data.metrics["labelled"]) == (2, 2)
    assert run.data.metrics["seconds/salience"] > 0
    assert run.data.params["masks.crf.name"] == "fast"
    assert run.data.params["limit"] == "2"
    assert run.data.tags["pnp_ovss.fingerprint"] == record["fingerprints"]["scores"]
    assert run.data.tags["pnp_ovss.version"] == record["versions"]["pnp-ovss"]
    copy = Path(run.info.artifact_uri.removeprefix("file://"), "report/index.html")
    assert copy.read_bytes() == (place / "run/report/index.html").read_bytes()


def test_a_finished_run_that_is_run_again_is_the_same_run_there_with_what_was_measured(tracked):
    place, store, _ = tracked
    before = runs_in(store)[0]
    summary_of(call(*command(place), "--track", f"mlflow:{store}"))
    (after,) = runs_in(store)
    assert after.info.run_id == before.info.run_id
    assert after.info.end_time == before.info.end_time
    assert after.data.metrics == before.data.metrics
    assert history(store, after, "miou") == [before.data.metrics["miou"]]


def test_a_store_that_fails_at_the_end_costs_a_warning_and_not_the_run(tracked, tmp_path):
    from flows.pipelines.evaluation import evaluate
    from pnp_core.config import EvalConfig

    place, _, said = tracked
    store = tmp_path / "store"

    class Breaking(SilentObserver):
        def begin(self, stage: str, total: int | None) -> None:
            (store / "mlflow.db").write_bytes(b"no database" * 1000)

    values = {"out": str(place / "run"), "limit": 2, "shards": 1, "track": f"mlflow:{store}"}
    with observed_by(Breaking()):
        summary = evaluate(EvalConfig.model_validate(values))
    assert summary.scores["miou"] == said["miou"]
    assert f"not recorded in mlflow:{store}" in summary.untracked


@pytest.mark.parametrize(
    ("track", "code", "message"),
    [
        ("wanda:x", 2, "unknown store for experiments 'wanda'; available: mlflow"),
        ("mlflow", 2, "say where, as mlflow:FOLDER"),
        ("mlflow:http://127.0.0.1:9", 1, "no MLflow store answers at 'http://127.0.0.1:9': no connection"),
        ("mlflow:https://me:secret@host/", 2, "does not belong into the address"),
        ("mlflow:FILE", 2, "is a file; name a folder"),
        ("mlflow:FILE.db", 1, "file is not a database"),
    ],
)
def test_a_store_that_cannot_be_written_is_one_line_before_any_work(track, code, message, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in ("FILE", "FILE.db"):
        (tmp_path / name).write_text("somebody else's " * 100)
    done = call(*command(tmp_path), "--track", track.replace("FILE", str(tmp_path / "FILE")))
    assert done.exit_code == code
    (line,) = done.stderr.strip().splitlines()
    assert message in line
    assert "secret" not in done.output
    assert not (tmp_path / "run/shards").exists()
    assert (tmp_path / "FILE.db").read_text() == "somebody else's " * 100


def test_without_its_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match=r"pip install 'pnp-ovss\[mlflow\]'"):
        open_tracker("mlflow:store")


def test_series_and_long_and_odd_texts_are_taken_and_go_on_where_they_were(tmp_path):
    store = tmp_path / "a store"

    def run(rewards: list[float]) -> Tracked:
        settings = {"classes": ["dog" * LONGEST], **{f"option {n}": n for n in range(150)}}
        return Tracked(
            "0123", "r\x1b[2J", str(tmp_path), settings, {"iou/café": 0.5}, {"t": "x" * 9000}, {"reward": rewards}
        )

    open_tracker(f"mlflow:{store}").record(run([0.25, 0.5]), 0)
    open_tracker(f"mlflow:{store}").record(run([0.25, 0.5, 0.125]), 0)
    (there,) = runs_in(store)
    assert history(store, there, "reward") == [0.25, 0.5, 0.125]
    assert there.data.metrics["iou/caf_"] == 0.5
    assert len(there.data.params) == 151
    assert there.data.params["classes"].endswith(" 18,004 characters")


def test_names_that_mlflow_does_not_take_stay_apart():
    names = [name for name, _ in named({"iou/a[1]": 0, "iou/a(1)": 0, "iou/..": 0, "iou/" + "x" * 999: 0})]
    assert names == ["iou/a_1_", "iou/a_1_ 2", "iou/_..", "iou/" + "x" * 200]


def test_mlflow_is_imported_for_those_only_who_ask_for_it(tracked):
    place, _, _ = tracked
    code = (
        "import sys; from typer.testing import CliRunner; from flows.cli import app\n"
        f"print(CliRunner().invoke(app, {command(place)!r}).exit_code, 'mlflow' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.split() == ["0", "False", "False"]
