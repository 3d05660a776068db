"""What is recorded of a run in a store for experiments, and what such a store does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Tracked:
    """A finished run, for a store.

    Attributes:
        identity: names the run: the same run again, resumed or finished, is recorded as the one that is there.
        name: for people.
        out: its run folder.
        settings: its configuration by dotted names.
        metrics: finite numbers by name.
        series: finite numbers in their order, by name.
        tags: short texts by name.
        files: of its run folder, those that people look at; one that is missing is left out.
    """

    identity: str
    name: str
    out: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)
    files: tuple[str, ...] = ()


@runtime_checkable
class Tracker(Protocol):
    """A store that was reached."""

    def record(self, run: Tracked, started: float) -> None:
        """Record a finished run, or bring the record that is there up to date.

        Args:
            run: what to record.
            started: when its work began, in seconds since 1970.

        Raises:
            Exception: of whatever kind; the run is finished and stays so.
        """
        ...


@runtime_checkable
class TrackerClass(Protocol):
    """A kind of store."""

    def open(self, place: str) -> Tracker:
        """Reach the store at a place; errors as of `open_tracker`."""
        ...
