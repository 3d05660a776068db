"""`tune`: choose threshold and blur, of PnP-OVSS layer and head too, from image-level labels alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from time import monotonic

from flows.dispatch.base import Stage
from flows.dispatch.inline import Inline
from flows.dispatch.stages import run_shard_stage, run_stage
from pnp_core.data import ShardRef, StageSummary
from pnp_core.runs.reasons import quarantine_reasons
from pnp_core.storage.ownership import writing
from pnp_core.tracking.tuning_facts import of_tuning
from pnp_core.tuning.compare import Comparison
from pnp_core.tuning.config import TuneConfig
from pnp_core.tuning.objective import require_images
from pnp_core.tuning.plan import Group, TunePlan, parallel_groups, plan_tune
from pnp_core.tuning.result import TuneSummary, discard_other_results, finish_tuning, write_best
from pnp_core.tuning.search import Trial
from tasks.runtime import observer, runtime
from tasks.tracking import tracked
from tasks.tuning import (
    Searched,
    task_cache_images,
    task_cache_maps,
    task_compare,
    task_report_tuning,
    task_search_group,
    task_shard_tuning,
)


@tracked(of_tuning)
def tune(config: TuneConfig) -> TuneSummary:
    """Keep the maps (of PnP-OVSS those of all (layer, head) pairs), search by the reward, write best.yaml.

    Run again with the same configuration it resumes, in the middle of a search too.
    """
    with writing(config.out, "run"):
        return _tune(config)


def _tune(config: TuneConfig) -> TuneSummary:
    plan = plan_tune(config)
    summary = TuneSummary(config.out)
    shards = run_shard_stage(lambda: task_shard_tuning(config), summary)
    with runtime().shown():
        maps = Stage("maps", task_cache_maps, plan, plan.maps.folder)
        here = Inline(config.dispatch)
        work = run_stage(maps, [(shard, None) for shard in shards], summary, here)
        run_stage(Stage("pictures", task_cache_images, plan), work, summary, here)
    summary.quarantined = summary.stages["maps"].quarantined
    if summary.quarantined:
        summary.reasons = quarantine_reasons([plan.maps.folder], shards)
    shards = [shard for shard, _ in work]
    require_images(plan, shards, summary)
    discard_other_results(plan, shards)
    trials = _search(plan, shards, summary)
    write_best(plan, shards, trials, summary)
    comparison = _compare(plan, shards, trials, summary)
    finish_tuning(plan, shards, comparison, summary)
    task_report_tuning(plan, shards, trials, comparison, summary)
    return summary


def _search(plan: TunePlan, shards: list[ShardRef], summary: TuneSummary) -> list[Trial]:
    """All groups, as many at a time as there are devices."""
    observer().begin("search", sum(group.trials for group in plan.groups))
    start, at_once = monotonic(), parallel_groups(plan.config)
    found, spent, replayed = [], Counter(), 0
    for first in range(0, len(plan.groups), at_once):
        for searched in _search_groups(plan, shards, plan.groups[first : first + at_once]):
            found += searched.trials
            spent.update(searched.seconds)
            summary.regions += searched.regions
            replayed += searched.replayed
    summary.search_seconds = dict(spent)
    counts = {"images": len(found), "images_resumed": replayed, "seconds": monotonic() - start}
    summary.stages["search"] = StageSummary(len(plan.groups), **counts)
    observer().end("search")
    return found


def _search_groups(plan: TunePlan, shards: list[ShardRef], groups: tuple[Group, ...]) -> Iterator[Searched]:
    """Groups side by side in threads; one alone in the main thread, where it can be interrupted."""
    if len(groups) == 1:
        yield task_search_group(plan, shards, groups[0])
        return
    with ThreadPoolExecutor(len(groups), "search") as pool:  # each in a copy of this context: Prefect's run
        searches = [pool.submit(copy_context().run, task_search_group, plan, shards, group) for group in groups]
        yield from (search.result() for search in searches)


def _compare(plan: TunePlan, shards: list[ShardRef], trials: list[Trial], summary: TuneSummary) -> Comparison | None:
    if plan.config.compare.masks == "off":
        return None
    observer().begin("compare", min(plan.config.compare.images, summary.images - summary.quarantined))
    start = monotonic()
    comparison = task_compare(plan, shards, trials)
    if comparison:
        summary.stages["compare"] = StageSummary(1, images=comparison.images, seconds=monotonic() - start)
    observer().end("compare")
    return comparison
