"""Progress of a flow run, in Prefect and wherever else it is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.artifacts import ProgressArtifacts
from tasks.runtime import observed_by, observer


@contextmanager
def progress_artifacts() -> Iterator[None]:
    """Show the stages of the block as progress artifacts of the flow run."""
    with observed_by(ProgressArtifacts(observer())):
        yield
