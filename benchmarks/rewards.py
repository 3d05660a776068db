"""Which reward chooses well? Variants of the CLIP reward beside mIoU, over the whole space of a finished tuning run.

    uv run pnp-ovss tune scenes --optimizer grid --compare full --out /tmp/grid
    uv run python -m benchmarks.rewards /tmp/grid

The run's comparison with masks gives the mIoU of every setting, or that of another run with the same space
(`--masks`), such as one on the test split. Variants that need more than the
pipeline's rewards (the picture without the region, the region moved elsewhere) are computed here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import read_index
from pnp_core.tuning.cache import read_images, read_pixels, setting_maps
from pnp_core.tuning.config import TuneConfig
from pnp_core.tuning.objective import Objective
from pnp_core.tuning.plan import plan_tune
from pnp_core.tuning.reward import RegionSimilarity, authors_reward, regions, roll_half, rotate_180, softmax
from pnp_core.tuning.search import Setting


class Seen:
    """Probabilities of the own class in the region, an empty picture, the rest, and the region put elsewhere."""

    def __init__(self, objective: Objective, setting: Setting) -> None:
        parts = [self._of_shard(objective, setting, shard) for shard in objective.shards]
        self.here, self.blank, self.rest, self.turned, self.moved, self.area, self.authors = (
            np.concatenate([part[i] for part in parts]) for i in range(7)
        )

    def _of_shard(self, objective: Objective, setting: Setting, shard: Any) -> tuple[np.ndarray, ...]:
        plan, judge = objective.plan, objective.judge
        images = read_images(plan.maps, shard.name)
        pixels = read_pixels(plan.images, shard.name)
        maps = setting_maps(plan.maps, setting, shard, images, objective.runtime)
        found = regions(maps, setting.threshold, setting.blur, judge.onlooker.size)
        column = {label: i for i, label in enumerate(plan.vocabulary)}
        own = [tuple(column[label] for label in image.classes) for image in images]
        image_of = np.repeat(np.arange(len(own)), [len(labels) for labels in own])
        label = np.array([label for labels in own for label in labels])
        names, rows = [image.key for image in images], np.arange(len(label))

        def similarity(changed: np.ndarray) -> np.ndarray:
            return judge.similarity(pixels, names, image_of, changed)

        area = found.mean(axis=(1, 2))
        sight = RegionSimilarity(similarity(found), judge.blank(), label, tuple(own[p] for p in image_of), area)
        here, rest, over, aside = (
            softmax(similarity(changed))[rows, label]
            for changed in (found, ~found, rotate_180(found), roll_half(found))
        )
        return here, softmax(judge.blank())[label], rest, over, aside, area, authors_reward(sight)


VARIANTS: dict[str, Callable[[Seen], np.ndarray]] = {
    "authors": lambda s: s.authors,
    "over blank": lambda s: s.here - s.blank,
    "over blank - area (contrast)": lambda s: s.here - s.blank - s.area,
    "over rest": lambda s: s.here - s.rest,
    "over rest - area": lambda s: s.here - s.rest - s.area,
    "over region turned": lambda s: s.here - s.turned,
    "over region turned - area": lambda s: s.here - s.turned - s.area,
    "over region moved by half": lambda s: s.here - s.moved,
    "over both (control)": lambda s: s.here - (s.turned + s.moved) / 2,
    "here x (1 - rest) - area": lambda s: s.here * (1 - s.rest) - s.area,
}


def compared(run: RunFolder, folder: str) -> Iterator[tuple[Setting, float]]:
    """Settings and mIoU of the run's comparison with masks."""
    (file,) = run.glob(f"{folder}/compare-*.parquet")
    for row in run.read_table(file).to_pylist():
        yield Setting(*(row[field.name] for field in fields(Setting))), row["miou"]


def main() -> None:
    """Print one line per variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--masks", help="run whose comparison has the mIoU; the same one by default")
    arguments = parser.parse_args()
    run, masks = RunFolder(arguments.run), RunFolder(arguments.masks or arguments.run)
    record = run.read_json("tune.json")
    plan = plan_tune(TuneConfig.model_validate(record["config"]))
    dataset = run.read_table("shards/index.parquet").schema.metadata
    shards = read_index(run, dataset[b"identity"].decode(), dataset[b"digest"].decode())
    objective = Objective.create(plan, shards or [], plan.config.runtime)
    known = dict(compared(masks, masks.read_json("tune.json")["search"]))
    known = {setting: miou for setting, miou in known.items() if setting in set(plan.groups[0].space.settings())}
    seen = {setting: Seen(objective, setting) for setting in known}
    miou = np.array(list(known.values()))
    print(f"{len(known)} settings, mIoU best {miou.max():.3f}, median {np.median(miou):.3f}\n")
    print("| reward | rank correlation | mIoU of its choice | share of the best |")
    print("|---|---|---|---|")
    for name, score in VARIANTS.items():
        rewards = np.array([score(s).mean() for s in seen.values()])
        rank = np.corrcoef(*(pd.Series(values).rank() for values in (rewards, miou)))[0, 1]
        chosen = miou[rewards.argmax()]
        print(f"| {name} | {rank:+.2f} | {chosen:.3f} | {chosen / miou.max():.1%} |")


if __name__ == "__main__":
    main()
