"""The fan-out every flow shares: all shards through one stage after the other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from math import inf
from queue import SimpleQueue
from threading import Event
from time import monotonic
from typing import Literal

from flows.dispatch import open_dispatch
from flows.dispatch.base import Dispatch, Stage, Work
from pnp_core.data import RunSummary, ShardRef, StageResult, StageSummary, Summary
from pnp_core.errors import PnpError, ShardError, StageFailedError, in_words
from pnp_core.runs.plan import Plan
from pnp_core.runs.reasons import quarantine_reasons
from pnp_core.stages.config import DispatchConfig
from pnp_core.storage.shards import set_shard_aside
from pnp_core.text.durations import duration
from tasks.masks import task_export_png, task_mask_shard
from tasks.runtime import ended_by, observer, runtime
from tasks.salience import task_extract_shard
from tasks.scores import task_merge_scores, task_score_shard

MAX_LEADING_FAILURES = 3
"""So many shards given up, or all where there are fewer, and none done: the run stops, no picture is at fault."""
Extent = Literal["run", "batch", "part"]
"""What the shards are: all of a run; a batch that others follow, so that few shards tell nothing of the run; or one
worker's, who does not see whether others succeed."""


class _StageProgress:
    """Counts what comes out of a stage, and tells people."""

    def __init__(self, stage: Stage, shards: list[ShardRef], summary: Summary, extent: Extent) -> None:
        self.counts = summary.stages.setdefault(stage.name, StageSummary())
        self.total, self._stage, self._images = len(shards), stage.name, sum(shard.samples for shard in shards)
        self._enough = {"run": min(MAX_LEADING_FAILURES, self.total), "batch": MAX_LEADING_FAILURES, "part": inf}[
            extent
        ]
        self._extent, self._start, self._computed, self._seen = extent, monotonic(), 0, 0
        self._summary = summary
        self._log = runtime().log
        observer().begin(stage.name, self._images)

    def add(self, shard: ShardRef, result: StageResult) -> None:
        """Count a shard in, and say how long the rest will take."""
        self.counts.add(result)
        self._seen += shard.samples
        self._computed += 0 if result.resumed else shard.samples
        if result.mended:
            self._log.warning("'%s' was damaged: shard %s of %s is made again", result.mended, shard.name, result.stage)
            self._summary.mended.append(result.mended)
        what = "failed" if result.failed else "done in an earlier run" if result.resumed else f"{result.seconds:.1f} s"
        images = f"{result.done} done, {result.quarantined} quarantined, {what}"
        shards = f"{self.counts.shards} of {self.total} shards{self._left()}"
        self._log.info("%s %s: %s; %s", self._stage, shard.name, images, shards)

    def _left(self) -> str:
        left = self._images - self._seen
        if not left or not self._computed:
            return ""
        seconds = (monotonic() - self._start) / self._computed * left
        return f", about {duration(seconds)} left" if seconds > 5 else ""

    def all_failed(self, ended: bool = False) -> bool:
        """Whether shards fail and none succeeds; at the end of a run however few they are."""
        enough = 1 if ended and self._extent == "run" else self._enough
        return enough <= self.counts.shards_failed == self.counts.shards

    def end(self) -> None:
        """The stage is over."""
        observer().end(self._stage)


def run_shard_stage(write: Callable[[], list[ShardRef]], summary: Summary) -> list[ShardRef]:
    """Write the shards and count the pictures."""
    observer().begin("shard", None)
    start = monotonic()
    shards = write()
    summary.images = sum(shard.samples for shard in shards)
    seconds = monotonic() - start
    summary.stages["shard"] = StageSummary(len(shards), images=summary.images, seconds=seconds)
    observer().advance("shard", summary.images)
    observer().end("shard")
    return shards


def run_stage(
    stage: Stage,
    work: list[Work],
    summary: Summary,
    dispatch: Dispatch,
    extent: Extent = "run",
) -> list[Work]:
    """One stage over all shards; those that fail are set aside.

    Args:
        dispatch: who does the work.
        extent: what the shards are.

    Returns:
        The shards that came through, in the order given, with their results.

    Raises:
        StageFailedError: every shard that was tried failed.
        PnpError: the run itself is at fault.
    """
    shards = [shard for shard, _ in work]
    return _in_order(shards, passing(stage, shards, work, summary, dispatch, extent))


def _in_order(shards: list[ShardRef], passed: Iterable[Work]) -> list[Work]:
    done = {shard.name: result for shard, result in passed}
    return [(shard, done[shard.name]) for shard in shards if shard.name in done]


def passing(
    stage: Stage, shards: list[ShardRef], work: Iterable[Work], summary: Summary, dispatch: Dispatch, extent: Extent
) -> Generator[Work]:
    """The shards that come through a stage, with their results, as they do; arguments and errors as of `run_stage`.

    Args:
        shards: all that `work` may have.
    """
    if stage.folder:  # before others put files into it
        stage.folder.claim()
    return _passing(stage, work, dispatch, _StageProgress(stage, shards, summary, extent))


def _passing(stage: Stage, work: Iterable[Work], dispatch: Dispatch, report: _StageProgress) -> Generator[Work]:
    failed = None
    with closing(dispatch.run(stage, work)) as outcomes:  # when this stops, so must the workers
        for shard, outcome in outcomes:
            if isinstance(outcome, Exception):
                outcome = _mark_failed(stage, shard, outcome, dispatch.config.attempts)
            report.add(shard, outcome)
            failed = shard if outcome.failed else None
            if not outcome.failed:
                yield shard, outcome
            elif report.all_failed():
                few = report.total <= MAX_LEADING_FAILURES
                which = "all shards" if few else f"the first {MAX_LEADING_FAILURES} shards"
                raise StageFailedError(f"{stage.name}: {which} failed: {_reasons(stage, shard)}")
    if failed and report.all_failed(ended=True):  # fewer came from the stage before than it began with
        raise StageFailedError(f"{stage.name}: all shards failed: {_reasons(stage, failed)}")
    report.end()


def run_side_by_side(
    first: Stage, second: Stage, work: list[Work], summary: Summary, dispatch: Dispatch, extent: Extent
) -> list[Work]:
    """Two stages of which the second works on a shard while the first works on the next; as `run_stage` of both.

    What ends the one ends the other: the first with its next shard, the second with its next batch of images.
    """
    shards = [shard for shard, _ in work]
    handed: SimpleQueue[Work | None] = SimpleQueue()
    stop = Event()

    def following() -> Iterator[Work]:
        while (one := handed.get()) is not None and not stop.is_set():
            yield one

    passed = passing(first, shards, work, summary, dispatch, extent)
    followed = passing(second, shards, following(), summary, dispatch, extent)

    def follow() -> list[Work]:
        with ended_by(stop), closing(followed):
            return list(followed)

    context = copy_context()  # its runtime, and Prefect's run
    with ThreadPoolExecutor(1, second.name) as pool, closing(passed):
        result = pool.submit(context.run, follow)
        try:
            for one in passed:
                if result.done():  # it has failed
                    break
                handed.put(one)
            handed.put(None)
            return _in_order(shards, result.result())
        except BaseException:
            stop.set()
            raise
        finally:
            handed.put(None)


def _mark_failed(stage: Stage, shard: ShardRef, error: Exception, attempts: int) -> StageResult:
    """Set a shard aside, unless the run is at fault and not the shard."""
    if stage.folder is None or (isinstance(error, PnpError) and not isinstance(error, ShardError)):
        raise error
    reason = in_words(error)
    if not isinstance(error, ShardError):
        reason = f"the shard failed {attempts} times: {reason}"
    return set_shard_aside(stage.folder, shard, reason, stage.before)


def _reasons(stage: Stage, shard: ShardRef) -> str:
    """Why a shard was given up."""
    assert stage.folder
    return stage.folder.quarantined(shard.name)[0].reason


def run_stages(
    plan: Plan, shards: list[ShardRef], summary: RunSummary, dispatch: DispatchConfig, extent: Extent = "run"
) -> list[ShardRef]:
    """Salience, masks, PNG when asked, scores when there is ground truth.

    Args:
        extent: what the shards are.

    Returns:
        The shards that have masks.

    Raises:
        StageFailedError: every shard that was tried failed.
        PnpError: the run itself is at fault.
    """
    salience = Stage("salience", task_extract_shard, plan.salience, plan.salience.folder, needs="gpu")
    needs = "gpu" if plan.masks.wants_gpu else "cpu"
    masks = Stage("masks", task_mask_shard, plan.masks, plan.masks.folder, plan.salience.folder, needs)
    work: list[Work] = [(shard, None) for shard in shards]
    with open_dispatch(dispatch) as workers:
        if _to_look_at(plan, shards) and workers.overlaps(plan.salience):
            work = run_side_by_side(salience, masks, work, summary, workers, extent)
        else:
            work = run_stage(salience, work, summary, workers, extent)
            work = run_stage(masks, work, summary, workers, extent)
        if plan.png:
            run_stage(Stage("png", task_export_png, plan.masks), work, summary, workers)
        if plan.score and work:
            run_stage(Stage("scores", task_score_shard, plan.score), work, summary, workers)
    masked = [shard for shard, _ in work]
    _conclude(plan, shards, summary)
    if plan.score and masked:
        summary.scores = task_merge_scores(plan.score, masked)
    return masked


def _to_look_at(plan: Plan, shards: list[ShardRef]) -> bool:
    """Whether there is salience for masks to be made beside."""
    return not plan.salience.folder.recorded().issuperset(shard.name for shard in shards)


def _conclude(plan: Plan, shards: list[ShardRef], summary: RunSummary) -> None:
    """What came of all the pictures."""
    summary.labelled = summary.stages["masks"].images
    summary.resumed = summary.stages["masks"].images_resumed
    counts = [summary.stages[stage] for stage in ("salience", "masks")]
    summary.quarantined = sum(stage.quarantined for stage in counts)
    summary.failed = sum(stage.images_failed for stage in counts)
    if summary.quarantined:
        summary.reasons = quarantine_reasons((plan.salience.folder, plan.masks.folder), shards)
