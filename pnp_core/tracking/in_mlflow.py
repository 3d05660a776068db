"""Runs in MLflow: a server, or a database on this machine.

Nothing of MLflow is imported before a store is opened. One run here is one run there: the tag `pnp_ovss.run` finds it
again, so a run that is resumed or repeated brings its record up to date.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pnp_core.errors import TrackingError, UsageError, in_words
from pnp_core.storage.run_folder import RunFolder
from pnp_core.text.visible import visible
from pnp_core.tracking.base import Tracked

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN = "pnp_ovss.run"
"""Tag that names a run."""
EXPERIMENT = "pnp-ovss"
"""Experiment where MLFLOW_EXPERIMENT_NAME names none."""
DATABASE = "mlflow.db"
AT_ONCE = 100
"""Parameters, metrics or tags in a request: MLflow takes no more parameters."""
LONGEST = 6000
"""Characters of a value that MLflow keeps."""
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # of 7, which take minutes
}
"""What MLflow reads of the environment; what the user has set stays."""


class MlflowTracker:
    """An experiment of an MLflow store; a `Tracker`."""

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self._client = client
        self._experiment = experiment

    @classmethod
    def open(cls, place: str) -> MlflowTracker:
        """Reach a store, and find or make the experiment there.

        Args:
            place: of a server; a folder, in which a database is made where there is none; a database of any kind that
                MLflow knows (`sqlite:///...`); or nothing for what MLFLOW_TRACKING_URI says.

        Raises:
            UsageError: MLflow is not installed, or the place is none.
            TrackingError: the store cannot be reached, or is none.
        """
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise UsageError("--track mlflow needs its extra: pip install 'pnp-ovss[mlflow]'") from error
        place = place or os.environ.get("MLFLOW_TRACKING_URI", "")
        if not place:
            raise UsageError(
                "--track mlflow: say where, as mlflow:FOLDER or mlflow:https://..., or MLFLOW_TRACKING_URI"
            )
        try:
            uri, artifacts = _store(place)
            client = MlflowClient(uri)
            return cls(client, _experiment(client, artifacts))
        except (UsageError, TrackingError):
            raise
        except Exception as error:  # whatever the client, the database and the network raise
            raise TrackingError(f"--track: no MLflow store answers at '{place}': {_in_short(error)}") from error

    def record(self, run: Tracked, started: float) -> None:
        """As `Tracker` says: parameters stay those of the first time, metrics that are others now are added."""
        there = self._find(run.identity) or self._client.create_run(
            self._experiment, start_time=_milliseconds(started), tags={RUN: run.identity}, run_name=visible(run.name)
        )
        self._record(there, run)
        self._leave_files(there.info.run_id, run)
        if there.info.status != "FINISHED":
            self._client.set_terminated(there.info.run_id)

    def _find(self, identity: str) -> Run | None:
        found = self._client.search_runs([self._experiment], f"tags.`{RUN}` = '{identity}'", max_results=1)
        return found[0] if found else None

    def _record(self, there: Run, run: Tracked) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now, run_id, data = _milliseconds(time()), there.info.run_id, there.data
        params = [Param(name, _text(value)) for name, value in named(run.settings) if name not in data.params]
        metrics = [Metric(name, value, now, 0) for name, value in named(run.metrics) if data.metrics.get(name) != value]
        for name, values in named(run.series):
            known = len(self._client.get_metric_history(run_id, name)) if name in data.metrics else 0
            metrics += [Metric(name, value, now, step) for step, value in enumerate(values) if step >= known]
        tags = [RunTag(name, value[:LONGEST]) for name, value in run.tags.items()]
        for part in _parts(params):
            self._client.log_batch(run_id, params=part)
        for part in _parts(metrics):
            self._client.log_batch(run_id, metrics=part)
        self._client.log_batch(run_id, tags=tags)

    def _leave_files(self, run_id: str, run: Tracked) -> None:
        """Copies of the files of the run folder, wherever that is."""
        source = RunFolder(run.out)
        for file in run.files:
            if (data := source.find_whole(file)) is None:
                continue
            with TemporaryDirectory() as folder:
                copy = Path(folder, file.rpartition("/")[2])
                copy.write_bytes(data)
                self._client.log_artifact(run_id, str(copy), file.rpartition("/")[0] or None)


def named(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """With names that MLflow takes, each another: it has no letters beyond ASCII, and no brackets.

    >>> dict(named({"iou/dog": 1.0, "iou/caf\u00e9 (old)": 2.0, "iou/caf\u00e8 (old)": 3.0, "iou/a/../b": 4.0}))
    {'iou/dog': 1.0, 'iou/caf_ _old_': 2.0, 'iou/caf_ _old_ 2': 3.0, 'iou/a_.._b': 4.0}
    """
    taken: set[str] = set()
    for name, value in values.items():
        group, slash, rest = name.partition("/")
        plain = "/".join(
            re.sub(r"[^A-Za-z0-9_. :-]", "_", part)[:200] for part in ((group, rest) if slash else (name,))
        )
        if rest and not rest.strip("."):  # which would be read as a path
            plain = f"{group}/_{rest}"
        others = (f"{plain} {again}" for again in count(2))
        other = next(n for n in chain([plain], others) if n not in taken)
        taken.add(other)
        yield other, value


def _store(place: str) -> tuple[str, str | None]:
    """MLflow's address of a store, and where files of its experiments lie where that is for us to say."""
    if "://" in place and not place.startswith("file://"):
        return place, None
    path = Path(unquote(urlsplit(place).path) if place.startswith("file://") else place).expanduser().absolute()
    if set("?#%") & set(str(path)):
        raise UsageError(f"--track mlflow: '{path}' has ?, # or % in it, which an address of a database cannot have")
    database = path if path.suffix == ".db" else path / DATABASE
    if path.is_file() and database != path:
        raise UsageError(f"--track mlflow: '{path}' is a file; name a folder, or a database that ends with .db")
    database.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{database}", (database.parent / "artifacts").as_uri()


def _experiment(client: MlflowClient, artifacts: str | None) -> str:
    """The experiment's id."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    there = client.get_experiment_by_name(name)
    if there is None:
        return client.create_experiment(name, artifacts)
    if there.lifecycle_stage != "active":
        raise TrackingError(
            f"--track mlflow: the experiment '{name}' was deleted there: restore it, or name another one by "
            f"MLFLOW_EXPERIMENT_NAME"
        )
    return there.experiment_id


def _in_short(error: BaseException) -> str:
    """MLflow's errors repeat what the libraries below say, which ends with the reason."""
    return in_words(error.__cause__ or error) if "Max retries" not in str(error) else "no connection"


def _text(value: Any) -> str:
    """A parameter as text, cut where MLflow would refuse it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 30]} ... {len(text):,} characters"


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    yield from (items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE))


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
