"""`ablate` and `tables`: the evaluations that benchmark tables need, and the tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flows.pipelines.evaluation import evaluate, evaluate_setting
from pnp_core.config import AblateConfig, EvalConfig, TablesConfig
from pnp_core.data import RunSummary
from pnp_core.storage.ownership import writing
from pnp_core.tables.missing import missing_settings
from pnp_core.text.visible import visible
from pnp_core.tracking import Tracked
from pnp_core.tracking.facts import of_ablation
from tasks.runtime import observer, runtime
from tasks.sharding import task_shard_dataset
from tasks.tables import task_tables
from tasks.tracking import tracked


@dataclass
class AblationSummary:
    """What an `ablate` run did.

    Attributes:
        made: settings that were evaluated, with their mIoU.
        untracked: as of `Summary`.
    """

    out: str
    made: dict[str, float | None] = field(default_factory=dict)
    untracked: str = ""

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"out": self.out, "made": self.made}


def _of_ablation(config: AblateConfig, summary: AblationSummary) -> Tracked | None:
    """Nothing of a run that had nothing to evaluate: what others made is in their records."""
    return of_ablation(config, summary.made) if summary.made else None


@tracked(_of_ablation)
def ablate(config: AblateConfig, evaluate_base: Callable[[EvalConfig], RunSummary] = evaluate) -> AblationSummary:
    """Evaluate the settings that the wanted tables need and the run folder has no scores of.

    Salience that is stored is used again. Run again after it was killed it goes on where it was.

    Args:
        evaluate_base: evaluates what the run folder stands for.
    """
    with writing(config.out, "run"):
        return _ablate(config, evaluate_base)


def _ablate(config: AblateConfig, evaluate_base: Callable[[EvalConfig], RunSummary]) -> AblationSummary:
    summary, log = AblationSummary(config.out), runtime().log
    task_shard_dataset(config.base)  # other pictures than before make all scores missing
    settings = missing_settings(config)
    observer().begin("settings", len(settings))
    for number, (place, setting) in enumerate(settings, 1):
        log.info("setting %d of %d: %s", number, len(settings), visible(place))
        run = evaluate_base if setting == config.base else evaluate_setting
        summary.made[place] = run(setting).scores.get("miou")
        observer().advance("settings", 1)
    observer().end("settings")
    return summary


def make_tables(config: TablesConfig) -> list[str]:
    """Make all benchmark tables from finished runs; returns the files' names."""
    return task_tables(config)
