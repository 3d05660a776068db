"""`label-corpus`: label what is new or changed in a folder that grows, and publish a manifest."""

from __future__ import annotations

from flows.dispatch.stages import run_stages
from pnp_core.config import CorpusConfig
from pnp_core.corpus import Corpus, CorpusSummary
from pnp_core.data import RunSummary, ShardRef
from pnp_core.errors import CorruptRunError, StageFailedError
from pnp_core.runs.plan import plan_label
from pnp_core.runs.recording import write_run_record
from pnp_core.storage.ownership import writing
from tasks.corpus import Collected, task_collect, task_find_damage, task_publish, task_report_corpus, task_take_up
from tasks.report import task_report
from tasks.runtime import runtime


def label_corpus(config: CorpusConfig) -> CorpusSummary:
    """Label what is new or changed since the last run, batch by batch, and publish each batch when it is done.

    Run again after it was killed it goes on with the batch it was at. A second run at the same time is refused,
    where both are on one machine.

    Raises:
        StageFailedError: there was something to label, and every shard failed; that is published.
    """
    with writing(config.out, "corpus"):
        return _label_all(config)


def _label_all(config: CorpusConfig) -> CorpusSummary:
    """All batches, one after the other."""
    summary = CorpusSummary(config.out)
    corpus = Corpus(config, plan_label(config))
    before = corpus.newest
    _mend(config, corpus, summary)
    collected = task_collect(corpus, retry=True)
    while True:
        batch = RunSummary(collected.plan.masks.out, masks=collected.plan.masks.place)
        masked = _label(config, collected, batch) if collected.shards else []
        if collected.shards:
            settings = config.model_copy(update={"out": batch.out})
            task_report(settings, collected.plan, masked, batch)
            write_run_record(settings, collected.plan, batch)
            summary.count(batch)
        task_publish(corpus, collected)  # last: what is published is never changed
        summary.ignored = max(summary.ignored, collected.ignored)
        summary.links = max(summary.links, collected.links)
        summary.left_out = collected.left_out or summary.left_out
        if not collected.more:
            break
        collected = task_collect(corpus, retry=False)
    summary.compare(before, corpus.newest)
    task_report_corpus(summary.markdown())
    if summary.all_failed:  # published all the same: what always fails must not hold up what comes later
        raise StageFailedError(f"all shards failed, the next run tries them again: {next(iter(summary.reasons))}")
    return summary


def _mend(config: CorpusConfig, corpus: Corpus, summary: CorpusSummary) -> None:
    """Make damaged masks that were published again; what cannot be made again is named, and keeps nothing back."""
    for number, file in task_find_damage(corpus).items():
        runtime().log.warning("'%s' is damaged or missing: batch %d is looked through", file, number)
        try:
            batch = task_take_up(corpus, number)
            mended = RunSummary(batch.plan.masks.out, masks=batch.plan.masks.place)
            _label(config, batch, mended)
            if mended.failed:
                summary.damaged.append(f"'{file}' is damaged, and could not be made again: {_first_reason(mended)}")
            else:
                summary.mended += [f"batches/{number:06d}/{path}" for path in mended.mended] or [file]
        except (CorruptRunError, StageFailedError) as error:
            summary.damaged.append(str(error))


def _first_reason(summary: RunSummary) -> str:
    """The most frequent reason for quarantine."""
    return next(iter(summary.reasons), "")


def _label(config: CorpusConfig, collected: Collected, batch: RunSummary) -> list[ShardRef]:
    """Label one batch; returns the shards that have masks."""
    batch.images = sum(shard.samples for shard in collected.shards)
    with runtime().shown():
        return run_stages(collected.plan, collected.shards, batch, config.dispatch, extent="batch")
