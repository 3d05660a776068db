"""Salience by the workers of a Prefect deployment, in batches of shards.

What is done is read from the completion records, not from the flow runs: a run that vanished without a word has still
left them. A batch's worker goes through its shards in order, so of a batch that was lost the first shard without
a record is the one it was at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic, sleep
from typing import Any
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Cancelling

from flows.dispatch.base import Results, Stage, Work
from flows.dispatch.inline import Inline
from pnp_core.data import ShardRef, StageResult
from pnp_core.errors import PnpError, UsageError
from pnp_core.stages.batch import SalienceBatch
from pnp_core.stages.config import DispatchConfig
from pnp_core.stages.maps import SalienceJob
from pnp_core.storage.run_folder import RunFolder, fingerprint
from pnp_core.text.visible import visible
from tasks.runtime import observer

POLL = 1.0
"""Seconds between looks at the batches."""
CANCELLING = 15.0
"""Seconds a worker has to stop a run; after that it is taken for dead."""
UNTAKEN = 60.0
"""Seconds after which people are told that nobody takes a batch."""


class Deployment(Inline):
    """The workers of a Prefect deployment for salience; the rest in this process."""

    def overlaps(self, job: SalienceJob) -> bool:
        """Always, unless the configuration says it: the model is with the workers."""
        return job.runtime.overlap is not False

    def run(self, stage: Stage, work: Iterable[Work]) -> Results:
        """All shards."""
        if isinstance(stage.job, SalienceJob):
            return run_deployed(stage.job, [shard for shard, _ in work], self.config)
        return super().run(stage, work)


class LostBatchError(Exception):
    """A batch ended before all its shards were done."""


@dataclass
class _Batch:
    """Shards on their way: those still to come, in order."""

    run: UUID
    left: list[ShardRef]
    last_sign: float
    taken: bool = False


def run_deployed(job: SalienceJob, shards: list[ShardRef], dispatch: DispatchConfig) -> Results:
    """Results of all shards as they come in; of lost ones the error of the last attempt.

    Raises:
        UsageError: there is no such deployment.
        PnpError: a batch failed for a reason that lies in the run, or was cancelled by somebody.
    """
    waiting, damaged = [], {}
    with get_client(sync_client=True) as client:
        dispatcher = _Dispatcher(client, job, dispatch)
        dispatcher.cancel_leftovers()  # before anything is looked for: what they still finish is not sent off again
        for shard in shards:
            if found := job.folder.find(shard.name, shard.sha256):
                observer().advance("salience", shard.samples)
                yield shard, found
            else:
                damaged[shard.name] = job.folder.damage(shard.name, shard.sha256)
                job.folder.try_again(shard.name)
                waiting.append(shard)
        for shard, outcome in dispatcher.results(waiting) if waiting else ():
            made = isinstance(outcome, StageResult) and not outcome.failed
            yield shard, replace(outcome, mended=damaged[shard.name]) if made else outcome


def batches(shards: list[ShardRef], workers: int, most: int) -> Iterator[list[ShardRef]]:
    """About one batch per worker, none larger than `most`."""
    size = min(most, -(-len(shards) // workers))
    for first in range(0, len(shards), size):
        yield shards[first : first + size]


def _error_names(kind: type[PnpError]) -> set[str]:
    """Names of errors that say what is wrong with the run, and stay wrong."""
    return {kind.__name__}.union(*(_error_names(sub) for sub in kind.__subclasses__()))


class _Dispatcher:
    def __init__(self, client: SyncPrefectClient, job: SalienceJob, dispatch: DispatchConfig) -> None:
        self._client, self._job, self._dispatch = client, job, dispatch
        self._tag = f"salience-of-{fingerprint(RunFolder(job.out).root, job.fingerprint)}"
        self._flying: list[_Batch] = []
        self._later: list[tuple[float, list[ShardRef]]] = []
        self._failures: Counter[str] = Counter()
        self._log = get_run_logger()

    def cancel_leftovers(self) -> None:
        """Stop the batches of an earlier run that was killed: two would do the same work."""
        wanted: Any = {
            "tags": {"all_": [self._tag]},
            "state": {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING"]}},
        }
        left = [run.id for run in self._client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(wanted))]
        for run in left:
            self._log.info("stopping batch %s of an earlier run", run)
            self._cancel(run)
        deadline = monotonic() + CANCELLING
        while left and monotonic() < deadline:
            sleep(POLL)
            left = [run for run in left if not self._ended(run)]
        for run in left:
            self._client.set_flow_run_state(run, Cancelled(message="its worker does not answer"), force=True)

    def results(self, shards: list[ShardRef]) -> Iterator[tuple[ShardRef, StageResult | Exception]]:
        """Send all shards off and wait for them."""
        try:
            for batch in batches(shards, self._dispatch.workers, self._dispatch.most_shards):
                self._send(batch)
            while self._flying or self._later:
                sleep(POLL)
                for batch in list(self._flying):
                    yield from self._look_at(batch)
                for due, left in [late for late in self._later if late[0] <= monotonic()]:
                    self._later.remove((due, left))
                    self._send(left)
        finally:  # also when the run is stopped: nobody would read what they do
            for batch in self._flying:
                with suppress(httpx.HTTPError, ObjectNotFound):  # the reason for stopping is what people should see
                    self._cancel(batch.run)

    def _send(self, shards: list[ShardRef]) -> None:
        batch = SalienceBatch.of(self._job, shards, self._dispatch)
        try:
            run = run_deployment(
                self._dispatch.deployment,
                parameters={"batch": batch.model_dump(mode="json")},
                tags=[self._tag],
                timeout=0,
            )
        except ObjectNotFound as error:
            raise UsageError(
                f"the Prefect server {self._client.api_url} has no deployment '{self._dispatch.deployment}'; "
                f"`pnp-ovss deploy` makes it"
            ) from error
        except PrefectHTTPStatusError as error:
            raise UsageError(
                f"the Prefect server {self._client.api_url} refuses a batch for '{self._dispatch.deployment}' "
                f"({error.response.status_code}): of another version? `pnp-ovss deploy` brings it up to date"
            ) from error
        self._log.info("%s to %s sent off as flow run '%s'", shards[0].name, shards[-1].name, visible(run.name))
        self._flying.append(_Batch(run.id, list(shards), monotonic()))

    def _look_at(self, batch: _Batch) -> Iterator[tuple[ShardRef, StageResult | Exception]]:
        """Shards of a batch that are done, and what is to be done about the others when it has ended."""
        state = self._client.read_flow_run(batch.run).state
        assert state
        # The records are read after the state: what an ended batch has not done now it will never do.
        while batch.left and (result := self._result(batch)):
            yield batch.left.pop(0), result
        if state.is_scheduled():
            self._wait_for_worker(batch)
        elif not batch.taken:
            batch.taken, batch.last_sign = True, monotonic()
        silent = batch.taken and monotonic() - batch.last_sign > self._dispatch.silence
        if silent and not state.is_final():
            self._cancel(batch.run)
        if state.is_final() or silent:
            self._flying.remove(batch)
            if batch.left:
                yield from self._lost(batch, state, silent)

    def _result(self, batch: _Batch) -> StageResult | None:
        """What became of the next shard: done, set aside by its worker, or nothing yet."""
        shard, folder = batch.left[0], self._job.folder
        found = folder.find(shard.name, shard.sha256) or folder.find_failed(shard.name)
        if found is None:
            return None
        seconds, batch.last_sign = monotonic() - batch.last_sign, monotonic()
        observer().advance("salience", shard.samples)
        return replace(found, resumed=False, seconds=seconds)

    def _lost(self, batch: _Batch, state: Any, silent: bool) -> Iterator[tuple[ShardRef, Exception]]:
        """Blame the shard that was in the works, and send the rest off again."""
        why = f"no shard was done for {self._dispatch.silence:.0f} s" if silent else f"{state.name}: {state.message}"
        ours = state.is_failed() and any(f"{name}:" in why for name in _error_names(PnpError))
        if (ours or state.is_completed() or state.is_cancelled()) and not silent:
            hint = " (does it see the same run folder?)" if state.is_completed() else ""
            raise PnpError(f"the worker ended without shard {batch.left[0].name}{hint}: {why}")
        culprit = batch.left[0]
        self._failures[culprit.name] += 1
        failures = self._failures[culprit.name]
        self._log.warning(
            "lost at shard %s, attempt %d of %d: %s", culprit.name, failures, self._dispatch.attempts, visible(why)
        )
        if failures >= self._dispatch.attempts:
            yield culprit, LostBatchError(why)
            batch.left.pop(0)
        if batch.left:
            self._later.append((monotonic() + self._dispatch.delay(failures), batch.left))

    def _wait_for_worker(self, batch: _Batch) -> None:
        if monotonic() - batch.last_sign > UNTAKEN:
            self._log.warning("no worker takes a batch of '%s': is one running?", visible(self._dispatch.deployment))
            batch.last_sign = monotonic()

    def _ended(self, run: UUID) -> bool:
        state = self._client.read_flow_run(run).state
        return state is not None and state.is_final()

    def _cancel(self, run: UUID) -> None:
        if not self._ended(run):
            self._client.set_flow_run_state(run, Cancelling())
