"""What a tuning run leaves: the trials, best.yaml, tune.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from pnp_core.data import ShardRef, Summary
from pnp_core.storage.provenance import versions
from pnp_core.storage.run_folder import REPORT, TUNING, table_bytes
from pnp_core.tuning.cache import read_images
from pnp_core.tuning.compare import Comparison
from pnp_core.tuning.plan import TunePlan
from pnp_core.tuning.search import Trial, best_trial, trials_table

BEST = "best.yaml"
RECORD = TUNING
FIGURE = "tuning.png"
RESULTS = (BEST, RECORD, FIGURE, REPORT)
TRIALS = "trials.parquet"


@dataclass
class TuneSummary(Summary):
    """Everything a tuning run has to say at its end.

    Attributes:
        best: the setting with the highest reward, and that reward.
        trials, settings: how many trials, and how many different settings they were.
        without_classes: pictures that are neither quarantined nor have a class: nothing in them is rewarded.
        equal_rewards: whether no setting was better than another.
        pairs: (picture, class) that the reward is a mean over.
        cache_bytes_per_image: of the stored maps.
        regions: that the judge looked at; equal ones count once.
        search_seconds: by part of the trials, see `Objective.seconds`.
        comparison: with masks, where there are some; not used in the search.
    """

    best: dict[str, Any] = field(default_factory=dict)
    trials: int = 0
    settings: int = 0
    without_classes: int = 0
    equal_rewards: bool = False
    pairs: int = 0
    cache_bytes_per_image: float = 0.0
    regions: int = 0
    search_seconds: dict[str, float] = field(default_factory=dict)
    comparison: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        own = {
            name: value for name, value in asdict(self).items() if name not in ("stages", "search_seconds", "untracked")
        }
        rounded = {name: round(value, 3) for name, value in self.search_seconds.items()}
        return {**own, "best_yaml": f"{self.out.rstrip('/')}/{BEST}", **self.stages_json(), "search_seconds": rounded}


def best_settings(plan: TunePlan, best: Trial) -> dict[str, Any]:
    """What the search has chosen, and all of the configuration that the choice depends on."""
    config = plan.config
    chosen = plan.maps.chosen(config, best.setting)
    return {
        **({"preset": config.preset} if config.preset else {}),
        "method": chosen["method"],
        "salience": {"words": config.salience.words},
        "masks": chosen["masks"],
    }


def _best_yaml(plan: TunePlan, shards: list[ShardRef], best: Trial, trials: int, images: int) -> str:
    config = plan.config
    what = " ".join(f"{config.dataset} {config.split or plan.card.tuning_split or ''}".split())
    judge = f"CLIP {config.reward.clip.model}" if config.reward.judge == "clip" else "the model's own match score"
    reward = " ".join(f"{config.reward.kind}, {judge}".split())
    return (
        f"# Chosen by `pnp-ovss tune` on {images} pictures of {what}, without masks.\n"
        f"# Reward {best.reward:.4f} ({reward}), best of {trials} trials in\n"
        f"# {plan.search_folder(shards)}\n"
        f"# Use it with: pnp-ovss eval|label ... --config best.yaml\n"
        + yaml.safe_dump(best_settings(plan, best), sort_keys=False)
    )


def discard_other_results(plan: TunePlan, shards: list[ShardRef]) -> None:
    """Delete what another search left in the run folder, so that nobody takes it for this one's."""
    if plan.search_folder(shards).encode() not in (plan.run.find_whole(BEST) or b""):
        for file in RESULTS:
            plan.run.remove(file)


def write_best(plan: TunePlan, shards: list[ShardRef], trials: list[Trial], summary: TuneSummary) -> None:
    """Write the trials of all groups and best.yaml, and sum up the search."""
    best = best_trial(trials)
    images = [image for shard in shards for image in read_images(plan.maps, shard.name)]
    held = [plan.run.size(plan.maps.folder.file(shard.name, "safetensors")) or 0 for shard in shards]
    summary.best = {**best.setting.columns, "reward": best.reward}
    summary.trials, summary.settings = len(trials), len({trial.setting for trial in trials})
    summary.equal_rewards = len({trial.reward for trial in trials}) == 1 and summary.settings > 1
    summary.pairs = sum(len(image.classes) for image in images)
    summary.without_classes = summary.images - summary.quarantined - len(images)
    summary.cache_bytes_per_image = sum(held) / max(1, len(images))
    plan.run.write(f"{plan.search_folder(shards)}/{TRIALS}", table_bytes(trials_table(trials)))
    plan.run.write(BEST, _best_yaml(plan, shards, best, len(trials), len(images)).encode())


def finish_tuning(plan: TunePlan, shards: list[ShardRef], comparison: Comparison | None, summary: TuneSummary) -> None:
    """Write tune.json: configuration, versions, weights, fingerprints, the choice, timings."""
    summary.comparison = comparison.as_json() if comparison else None
    record = {
        "config": plan.config.model_dump(mode="json"),
        "versions": versions(),
        "weights_revision": plan.maps.salience.pinned.revision,
        "judge_revision": plan.judge_revision,
        "card": {"name": plan.card.name, "version": plan.card.version},
        "search": plan.search_folder(shards),
        "summary": summary.as_json(),
    }
    plan.run.write_json(RECORD, record)
