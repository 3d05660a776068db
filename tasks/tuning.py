"""Tasks of the tuning flow."""

from __future__ import annotations

from dataclasses import dataclass

from pnp_core.data import ShardRef, StageResult
from pnp_core.report.tuning_page import tuning_page
from pnp_core.report.tuning_plots import tuning_figure
from pnp_core.report.tuning_text import tuning_markdown
from pnp_core.storage.run_folder import REPORT
from pnp_core.tuning.cache import cache_images
from pnp_core.tuning.compare import Comparison, compare
from pnp_core.tuning.config import TuneConfig
from pnp_core.tuning.objective import Objective
from pnp_core.tuning.plan import Group, TunePlan, group_runtime, shard_tuning
from pnp_core.tuning.result import FIGURE, TuneSummary
from pnp_core.tuning.search import Trial, TrialLog, known_rewards, search_group
from tasks.runtime import observer, run_on_shard, runtime, stage_task


@stage_task("shard")
def task_shard_tuning(config: TuneConfig) -> list[ShardRef]:
    """Shard the pictures to tune on."""
    return shard_tuning(config)


@stage_task("maps", run_name="maps-{shard.name}")
def task_cache_maps(job: TunePlan, shard: ShardRef, before: StageResult | None = None) -> StageResult:
    """Keep the maps of one shard; of PnP-OVSS those of all (layer, head) pairs."""
    return run_on_shard("maps", shard, lambda progress: job.maps.keep(shard, progress))


@stage_task("pictures", run_name="pictures-{shard.name}")
def task_cache_images(job: TunePlan, shard: ShardRef, before: StageResult) -> StageResult:
    """Keep one shard's pictures as the judge sees them."""
    return cache_images(job.images, shard, before)


@dataclass(frozen=True)
class Searched:
    """A group's trials, how many of them were in its log, where the time went, and regions the judge looked at."""

    trials: list[Trial]
    replayed: int
    seconds: dict[str, float]
    regions: int


@stage_task("search", run_name="search-group-{group.number}")
def task_search_group(plan: TunePlan, shards: list[ShardRef], group: Group) -> Searched:
    """Search one group, or go on with the search from its log."""
    objective = Objective.create(plan, shards, group_runtime(plan.config.runtime, group.number))
    log, watch = TrialLog(plan.run, plan.log_file(shards, group)), observer()
    replayed = min(len(log.trials), group.trials)
    trials = search_group(
        group.number,
        group.space,
        plan.optimizer,
        group.trials,
        plan.config.search.seed,
        log,
        known_rewards(plan.run, plan.reward_folder(shards)),
        objective,
        lambda n: watch.advance("search", n),
    )
    return Searched(trials, replayed, objective.seconds, objective.judge.seen)


@stage_task("compare")
def task_compare(plan: TunePlan, shards: list[ShardRef], trials: list[Trial]) -> Comparison | None:
    """Score what was tried with masks, where there are some, for people."""
    watch = observer()
    return compare(plan, shards, trials, lambda n: watch.advance("compare", n))


@stage_task("report")
def task_report_tuning(
    plan: TunePlan, shards: list[ShardRef], trials: list[Trial], comparison: Comparison | None, summary: TuneSummary
) -> None:
    """Draw the plots and leave the report page, and a page of text beside the run."""
    plan.run.write(FIGURE, tuning_figure(trials, comparison))
    plan.run.write(REPORT, tuning_page(plan, shards, trials, comparison, summary))
    runtime().leave_page(lambda: tuning_markdown(summary), key="tuning", description="What the search has chosen")
