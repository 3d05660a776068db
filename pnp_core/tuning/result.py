"""What a tuning run leaves: the trials, best.yaml, tune.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from pnp_core.config import TuneConfig
from pnp_core.plan import quarantine_reasons, versions
from pnp_core.records import ShardRef, Summary
from pnp_core.search import Trial, best_trial, trials_table
from pnp_core.stages.cache import read_pictures
from pnp_core.store import table_bytes
from pnp_core.tuning.compare import Comparison
from pnp_core.tuning.plan import TunePlan

BEST = "best.yaml"
TRIALS = "trials.parquet"


@dataclass
class TuneSummary(Summary):
    """Everything a tuning run has to say at its end.

    Attributes:
        best: the setting with the highest reward, and that reward.
        trials, settings: how many trials, and how many different settings they were.
        pairs: (picture, class) that the reward is a mean over.
        cache_bytes_per_image: of the maps cache.
        regions: that CLIP looked at; equal ones count once.
        search_seconds: by part of the trials, see `Objective.seconds`.
        comparison: with masks, where there are some; not used in the search.
    """

    best: dict[str, Any] = field(default_factory=dict)
    trials: int = 0
    settings: int = 0
    pairs: int = 0
    cache_bytes_per_image: float = 0.0
    regions: int = 0
    search_seconds: dict[str, float] = field(default_factory=dict)
    comparison: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        own = {name: value for name, value in asdict(self).items() if name not in ("stages", "search_seconds")}
        rounded = {name: round(value, 3) for name, value in self.search_seconds.items()}
        return {**own, "best_yaml": f"{self.out.rstrip('/')}/{BEST}", **self.stages_json(), "search_seconds": rounded}


def best_settings(config: TuneConfig, best: Trial) -> dict[str, Any]:
    """The parts of a configuration that the search has chosen, and the model they were chosen for."""
    backbone = config.salience.backbone.model_dump()
    salience: dict[str, Any] = {"backbone": backbone, "layer": best.setting.layer, "head": best.setting.head}
    if config.space.iterations != (1,):
        salience["dropout"] = {"iterations": best.setting.iterations}
    masks = {"threshold": best.setting.threshold, "blur": best.setting.blur}
    return {"preset": config.preset, "salience": salience, "masks": masks}


def _best_yaml(config: TuneConfig, best: Trial, trials: int) -> str:
    what = " ".join(f"{config.dataset} {config.split or ''}".split())
    reward = f"{config.reward.kind}, CLIP {' '.join(config.reward.clip.model.split())}"
    return (
        f"# Chosen by `pnp-ovss tune` on {config.images} pictures of {what}, without masks.\n"
        f"# Reward {best.reward:.4f} ({reward}), best of {trials} trials.\n"
        f"# Use it with: pnp-ovss eval|label ... --config best.yaml\n"
        + yaml.safe_dump(best_settings(config, best), sort_keys=False)
    )


def write_best(plan: TunePlan, shards: list[ShardRef], trials: list[Trial], summary: TuneSummary) -> Trial:
    """Write the trials of all groups and best.yaml, and sum up the search."""
    best = best_trial(trials)
    pictures = [picture for shard in shards for picture in read_pictures(plan.maps, shard.name)]
    held = [plan.run.size(plan.maps.folder.file(shard.name, "safetensors")) or 0 for shard in shards]
    summary.best = {**asdict(best.setting), "reward": best.reward}
    summary.trials, summary.settings = len(trials), len({trial.setting for trial in trials})
    summary.pairs = sum(len(picture.classes) for picture in pictures)
    summary.cache_bytes_per_image = sum(held) / max(1, len(pictures))
    if summary.quarantined:
        summary.reasons = quarantine_reasons(plan.maps.folder, shards)
    plan.run.write(f"{plan.search_folder(shards)}/{TRIALS}", table_bytes(trials_table(trials)))
    plan.run.write(BEST, _best_yaml(plan.config, best, len(trials)).encode())
    return best


def finish_tuning(plan: TunePlan, shards: list[ShardRef], comparison: Comparison | None, summary: TuneSummary) -> None:
    """Write tune.json: configuration, versions, weights, fingerprints, the choice, timings."""
    summary.comparison = comparison.as_json() if comparison else None
    record = {
        "config": plan.config.model_dump(mode="json"),
        "versions": versions(),
        "weights_revision": plan.maps.salience.checkpoint.revision,
        "clip_revision": plan.clip_revision,
        "card": {"name": plan.card.name, "version": plan.card.version},
        "search": plan.search_folder(shards),
        "summary": summary.as_json(),
    }
    plan.run.write_json("tune.json", record)
