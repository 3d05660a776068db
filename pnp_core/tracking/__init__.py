"""Stores for experiments, beside the run folder: where people compare runs, such as MLflow.

The run folder stays what counts. A store is opened before the work, so that a wrong one costs nothing; what is recorded
in it is made of the finished run (`facts`).
"""

from __future__ import annotations

from pnp_core.errors import UsageError
from pnp_core.registry import Registry
from pnp_core.tracking.base import Tracked, Tracker, TrackerClass

__all__ = ["TRACKERS", "Tracked", "Tracker", "open_tracker"]

TRACKERS: Registry[TrackerClass] = Registry(
    "store for experiments", "pnp_ovss.trackers", {"mlflow": "pnp_core.tracking.in_mlflow:MlflowTracker"}
)


def open_tracker(track: str) -> Tracker:
    """A store that can be written.

    Args:
        track: its kind, and where it is: `mlflow:FOLDER`, `mlflow:https://...`; or the kind alone, whose own settings
            then say where.

    Raises:
        UsageError: there is no such kind of store, a package is missing, or the place is none.
        TrackingError: it cannot be reached or written.
    """
    kind, _, place = track.partition(":")
    if "@" in place.partition("://")[2].partition("/")[0]:
        raise UsageError(f"--track {kind}: a name or password does not belong into the address, which run.json keeps")
    return TRACKERS.get(kind).open(place)
