"""Flow `corpus`: label what is new or changed in a folder that grows, and publish a manifest."""

from __future__ import annotations

from collections import Counter

from prefect import flow

from flows.reporting import progress_artifacts
from flows.stages import run_stages
from pnp_core.config import CorpusConfig
from pnp_core.corpus import Corpus, CorpusSummary
from pnp_core.plan import finish_run, plan_label
from pnp_core.records import RunSummary
from tasks.corpus import Collected, task_collect, task_publish, task_report_corpus
from tasks.report import task_report


@flow(name="corpus", flow_run_name="corpus-{config.source}", persist_result=False)
def label_corpus(config: CorpusConfig) -> CorpusSummary:
    """Label what is new or changed since the last run, batch by batch, and publish each batch when it is done.

    Run again after it was killed it goes on with the batch it was at. Two runs at a time would do the same work.
    """
    summary = CorpusSummary(config.out)
    before = Corpus(config, plan_label(config)).latest
    collected = task_collect(config, retry=True)
    while True:
        if collected.shards:
            _label(config, collected, summary)
        task_publish(config, collected)
        if not collected.more:
            break
        collected = task_collect(config, retry=False)
    summary.add(before, Corpus(config, plan_label(config)).latest)
    task_report_corpus(summary.markdown())
    return summary


def _label(config: CorpusConfig, collected: Collected, summary: CorpusSummary) -> None:
    """Label one batch, and count it in."""
    plan = collected.plan
    batch = RunSummary(plan.masks.out, masks=plan.masks.place)
    batch.images = sum(shard.samples for shard in collected.shards)
    with progress_artifacts():
        masked = run_stages(plan, collected.shards, batch, config.dispatch)
    task_report(plan, masked, batch)
    finish_run(config.model_copy(update={"out": plan.masks.out}), plan, batch)
    summary.images += batch.images
    summary.labelled += batch.labelled
    summary.failed += batch.failed
    summary.quarantined += batch.quarantined
    summary.reasons = dict((Counter(summary.reasons) + Counter(batch.reasons)).most_common())
    for name, stage in batch.stages.items():
        summary.stages[name] = summary.stages[name] + stage if name in summary.stages else stage
