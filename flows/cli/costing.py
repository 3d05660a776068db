"""`--dry-run`: what a run is and what it will take, said before it is begun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

from flows.cli.running import one_line_errors, quiet_prefect, warn
from pnp_core.text.visible import visible_json

if TYPE_CHECKING:
    from pnp_core.checks.run_cost import RunCost
    from pnp_core.data import Summary
    from pnp_core.tuning.config import TuneConfig
    from pnp_core.tuning.plan import TunePlan


def say_cost(estimate: Callable[[], RunCost], as_json: bool, debug: bool, more: dict[str, Any] | None = None) -> None:
    """Print a cost; `more` is what `--json` says besides."""
    quiet_prefect(debug)
    with one_line_errors(debug, kept="nothing was written"):
        cost = estimate()
        warn(list(cost.warnings))
        from rich.console import Console

        from flows.cli.console import errors
        from flows.cli.model_console import show_cost

        show_cost(cost, errors if as_json else Console())
        if as_json:
            print(visible_json({**(more or {}), **cost.as_json()}), flush=True)


def tune_cost(config: TuneConfig) -> RunCost:
    """What `tune` will take, by a search of a few trials on a few of its pictures; nothing is written to its folder.

    Raises:
        PnpError: as `plan_tune`; or files are missing, or the pictures that are tried have no class.
    """
    from pnp_core.checks.run_cost import TRIED, RunCost, nothing_downloaded, pictures_done, planned_or_why, run_facts
    from pnp_core.storage.files import Files
    from pnp_core.storage.ownership import check_ours
    from pnp_core.tuning.plan import plan_tune, tuning_images

    check_ours(Files(config.out), "run")
    number = tuning_images(config)
    with nothing_downloaded():
        plan, problem = planned_or_why(lambda: plan_tune(config))
        facts = {"pictures": number, **run_facts(config)}
        if plan is None:
            return RunCost(done=0, classes=len(config.classes), problem=problem, **facts)
        done = min(number, pictures_done(plan.maps.folder))
        cost = RunCost(done=done, classes=len(plan.maps.salience.vocabulary), **facts)
        return _tried(config, plan, cost, min(TRIED, number))


def _tried(config: TuneConfig, plan: TunePlan, cost: RunCost, images: int) -> RunCost:
    from flows.pipelines.tuning import tune
    from pnp_core.runs.preflight import remarks
    from pnp_core.storage.provenance import peak_memory

    start = perf_counter()
    loaded = plan.maps.load()  # beforehand: it is not for each picture
    start = perf_counter() - start
    loaded.check(plan.maps.salience.vocabulary)
    search = config.search.model_copy(update={"trials": 2 * len(plan.groups), "optimizer": "random-search"})
    with TemporaryDirectory(prefix="pnp-ovss-") as folder:
        summary = tune(config.model_copy(update={"out": folder, "images": images, "search": search}))
    peak = peak_memory()
    return replace(
        cost,
        settings=sum(group.trials for group in plan.groups),
        tried=images,
        labelled=images - summary.quarantined,
        seconds={"start": start, **_seconds(config, plan, summary, cost, images)},
        memory_bytes=peak.get("device", peak["host"]),
        disk_bytes=round(summary.cache_bytes_per_image * (cost.pictures - cost.done)),
        warnings=tuple(remarks(plan.maps.salience)),
    )


def _seconds(config: TuneConfig, plan: TunePlan, summary: Summary, cost: RunCost, images: int) -> dict[str, float]:
    """By stage: maps and pictures for each picture, the search for each trial and picture, masks of what was tried."""
    trials = sum(group.trials for group in plan.groups) / (2 * len(plan.groups))
    times = {"maps": cost.pictures - cost.done, "pictures": cost.pictures, "search": cost.pictures * trials}
    times["compare"] = min(cost.pictures, config.compare.images) * trials
    taken = {name: stage.seconds for name, stage in summary.stages.items()}
    return {name: taken[name] / images * often for name, often in times.items() if name in taken}
