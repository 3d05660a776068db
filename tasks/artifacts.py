"""What people see of a flow run in Prefect: progress per stage, a few overlays, a table of scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import get_run_logger

from pnp_core.text.visible import visible
from tasks.runtime import Observer

EVERY = 5.0
"""Seconds between updates of a progress artifact."""
TITLES = {
    "salience": "Pictures with salience",
    "masks": "Pictures with masks",
    "png": "PNG files",
    "scores": "Pictures scored",
    "maps": "Pictures with maps of all layers and heads",
    "pictures": "Pictures kept for the judge",
    "search": "Trials of the search",
    "compare": "Pictures compared",
}


class ProgressArtifacts:
    """A progress artifact per stage; an `Observer` that passes everything on to another one."""

    def __init__(self, passed_to: Observer) -> None:
        self._next = passed_to
        self._artifacts: dict[str, UUID] = {}
        self._total: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._shown: dict[str, float] = {}

    def begin(self, stage: str, total: int | None) -> None:
        """A stage starts; without a total nothing is shown."""
        self._next.begin(stage, total)
        if not total:
            return
        self._total[stage], self._done[stage], self._shown[stage] = total, 0, monotonic()
        with _worth_a_line():
            made = create_progress_artifact(0.0, key=f"progress-{stage}", description=TITLES.get(stage, stage))
            assert isinstance(made, UUID)
            self._artifacts[stage] = made

    def advance(self, stage: str, images: int) -> None:
        """So many more pictures are done."""
        self._next.advance(stage, images)
        if stage not in self._artifacts:
            return
        self._done[stage] += images
        if monotonic() - self._shown[stage] > EVERY:
            self._show(stage, self._done[stage] / self._total[stage])

    def end(self, stage: str) -> None:
        """A stage is over."""
        self._next.end(stage)
        if stage in self._artifacts:
            self._show(stage, 1.0)

    def _show(self, stage: str, share: float) -> None:
        self._shown[stage] = monotonic()
        with _worth_a_line():
            update_progress_artifact(self._artifacts[stage], min(100.0, round(100 * share, 1)))


@contextmanager
def _worth_a_line() -> Iterator[None]:
    """A server that does not answer is worth a line, not the shard that is in the works."""
    try:
        yield
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        get_run_logger().warning("progress could not be shown: %s", visible(str(error)))
