"""What of a finished search is recorded in a store for experiments."""

from __future__ import annotations

from pnp_core.storage.run_folder import RunFolder
from pnp_core.tracking.base import Tracked
from pnp_core.tracking.facts import identity, numbers, settings, tags, timings
from pnp_core.tuning.config import TuneConfig
from pnp_core.tuning.result import BEST, FIGURE, RECORD, TRIALS, TuneSummary


def of_tuning(config: TuneConfig, summary: TuneSummary) -> Tracked:
    """A run of `tune`: the reward of each trial, in the order of the trials, and what was chosen."""
    run = RunFolder(config.out)
    search = run.read_json(RECORD)["search"]
    found = summary.comparison or {}
    best = {("reward_best" if name == "reward" else f"best/{name}"): value for name, value in summary.best.items()}
    counts = {n: getattr(summary, n) for n in ("images", "quarantined", "without_classes", "trials", "settings")}
    return Tracked(
        identity=identity("tune", config, search),
        name=config.title,
        out=config.out,
        settings=settings(config),
        metrics=numbers({**counts, **timings(summary), **best, **{n: v for n, v in found.items() if n != "images"}}),
        series={"reward": run.read_table(f"{search}/{TRIALS}", ["reward"]).column("reward").to_pylist()},
        tags=tags("tune", config.out, search.rsplit("/", 1)[-1]) | {"pnp_ovss.best": run.path(BEST)},
        files=(BEST, FIGURE, RECORD),
    )
