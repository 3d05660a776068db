"""The hook by which finished runs are recorded in a store for experiments, with Prefect and without."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from time import time
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from pnp_core.config import TrackedConfig
from pnp_core.errors import in_words
from pnp_core.text.visible import visible
from pnp_core.tracking import Tracked, Tracker, open_tracker
from tasks.runtime import runtime


class Finished(Protocol):
    """What a pipeline has to say at its end."""

    untracked: str


P = ParamSpec("P")
SomeConfig = TypeVar("SomeConfig", bound=TrackedConfig)
SomeSummary = TypeVar("SomeSummary", bound=Finished)
Pipeline = Callable[Concatenate[SomeConfig, P], SomeSummary]


def tracked(
    facts: Callable[[SomeConfig, SomeSummary], Tracked | None],
) -> Callable[[Pipeline[SomeConfig, P, SomeSummary]], Pipeline[SomeConfig, P, SomeSummary]]:
    """Have the runs of a pipeline recorded where their configuration says so.

    A store that cannot be written is found before the work begins. One that fails afterwards costs nothing: the run is
    finished, its summary says why it was not recorded, and the same run again records it.

    Args:
        facts: what is recorded of a finished run, None where nothing is.
    """

    def decorate(pipeline: Pipeline[SomeConfig, P, SomeSummary]) -> Pipeline[SomeConfig, P, SomeSummary]:
        @wraps(pipeline)
        def recorded(config: SomeConfig, *arguments: P.args, **named: P.kwargs) -> SomeSummary:
            if config.track is None:
                return pipeline(config, *arguments, **named)
            tracker, started = open_tracker(config.track), time()
            summary = pipeline(config, *arguments, **named)
            summary.untracked = _recorded(tracker, lambda: facts(config, summary), config.track, started)
            return summary

        return recorded

    return decorate


def _recorded(tracker: Tracker, facts: Callable[[], Tracked | None], track: str, started: float) -> str:
    """Record a run; why not, where that fails."""
    try:
        run = facts()
        if run is not None:
            tracker.record(run, started)
    except Exception as error:  # whatever a store raises: the run is finished, and stays so
        failed = f"the run is not recorded in {visible(track)}: {in_words(error)}; run it again to record it"
        runtime().log.warning(failed)
        return failed
    return ""
