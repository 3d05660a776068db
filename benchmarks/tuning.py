"""Tuning with the cache beside running the vision-language model anew for each trial, on the same pictures.

    uv run python -m benchmarks.tuning --images 50 --anew 2
    uv run python -m benchmarks.tuning --size large --images 2 --anew 1

`large` has the shape of Salesforce/blip-itm-large-flickr at 336 pixels and CLIP that of ViT-L-14-336, both with
random weights: times do not depend on the values. Anew runs for the first trials only, and is taken times 102; in
two ways: the plain one, stock forward and a backward through everything, and this project's salience stage.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from transformers import BlipForImageTextRetrieval

from benchmarks.salience import seconds
from pnp_core.data import ShardRef
from pnp_core.inputs.images import decode_image
from pnp_core.methods.pnp.backbones import locate_checkpoint
from pnp_core.methods.pnp.loaded import model_pixels
from pnp_core.methods.pnp.prompts import build_prompts
from pnp_core.stages.maps import extract_maps
from pnp_core.storage.shards import read_shard
from pnp_core.tuning.cache import cache_images, cache_maps, job_of
from pnp_core.tuning.config import TuneConfig
from pnp_core.tuning.objective import Objective
from pnp_core.tuning.plan import TunePlan, plan_tune, shard_tuning
from pnp_core.tuning.search import TRIALS_PER_GROUP, Setting, Trial, TrialLog, search_group
from tests.models import LARGE, save_random_blip
from tests.pnp_core.methods.pnp.backbones.reference import FullBackward

TRIALS = 3 * TRIALS_PER_GROUP


def configured(size: str, images: int, folder: Path) -> TuneConfig:
    """Scenes with the bundled models, or with a random BLIP-large in the bundled one's place."""
    values: dict[str, Any] = {"out": str(folder / "run"), "images": images}
    if size == "large":
        checkpoint = save_random_blip(folder / "blip", LARGE)
        backbone = {"checkpoint": str(checkpoint), "image_size": 336, "heads": 12}
        values["salience"] = {"backbone": backbone, "caption": {"mode": "joint"}}
    return TuneConfig.model_validate(values)


def plainly(plan: TunePlan, shards: list[ShardRef]) -> Callable[[Setting], None]:
    """One trial's maps by the stock model: every picture forward and backward through everything."""
    job = plan.maps.salience
    folder = locate_checkpoint(plan.config.method.backbone).folder
    model, encoder = FullBackward(BlipForImageTextRetrieval.from_pretrained(folder).eval()), plan.maps.load().backbone

    def trial(setting: Setting) -> None:
        for sample in (sample for shard in shards for sample in read_shard(plan.run, shard)):
            pixels = model_pixels(decode_image(sample.image, 10**8).pixels, plan.config.method.backbone.sides)
            names = [plan.card.captions[label - 1] for label in sample.classes or ()]
            model.class_maps(pixels, build_prompts(names, job.config.caption, encoder), setting.layer, setting.head)

    return trial


def anew(plan: TunePlan, shards: list[ShardRef]) -> Callable[[Setting], None]:
    """One trial's maps by this project's salience stage, nothing kept."""

    def trial(setting: Setting) -> None:
        job = job_of(plan.maps, setting)
        for shard in shards:
            for _ in extract_maps(read_shard(plan.run, shard), job, lambda n: None):
                pass

    return trial


def searched(plan: TunePlan, shards: list[ShardRef]) -> tuple[list[Trial], Objective]:
    """All trials of all groups from the cache; the times of the groups are added up."""
    trials, total = [], Objective.create(plan, shards, plan.config.runtime)
    for group in plan.groups:
        log = TrialLog(plan.run, plan.log_file(shards, group))
        objective = replace(total, seconds=total.seconds)
        found = search_group(
            group.number, group.space, plan.optimizer, group.trials, 0, log, {}, objective, lambda n: None
        )
        trials += found
    return trials, total


def clip_seconds_per_region(size: int) -> float:
    """A CLIP ViT-L-14-336 with random weights on a few regions."""
    model = open_clip.create_model("ViT-L-14-336").eval()
    pixels = torch.zeros(4, 3, size, size)
    with torch.no_grad():
        return min(seconds(lambda: model.encode_image(pixels)) for _ in range(2)) / len(pixels)


def main() -> None:
    """Print the times and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "large"), default="tiny")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--anew", type=int, default=2, help="trials to run anew")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        config = configured(arguments.size, arguments.images, Path(folder))
        plan = plan_tune(config)
        shards = shard_tuning(config)
        settings = [next(plan.groups[i % len(plan.groups)].space.settings()) for i in range(arguments.anew)]
        plain, own = plainly(plan, shards), anew(plan, shards)
        own(settings[0])  # loads the model
        plain_time = TRIALS * float(np.mean([seconds(lambda s=s: plain(s)) for s in settings]))
        own_time = TRIALS * float(np.mean([seconds(lambda s=s: own(s)) for s in settings]))
        cache_time = seconds(lambda: [cache_images(plan.images, s, cache_maps(plan.maps, s)) for s in shards])
        trials, objective = searched(plan, shards)
        held = sum(plan.run.size(plan.maps.folder.file(s.name, "safetensors")) or 0 for s in shards)
    spent = objective.seconds
    cached = cache_time + spent["maps"]
    per_image = 1 / arguments.images
    print(
        f"{len(trials)} trials, {len({t.setting for t in trials})} settings, {arguments.images} pictures; per picture:"
    )
    print(f"VLM part, plain, {TRIALS} trials    {plain_time * per_image:9.3f} s (from {arguments.anew} trials)")
    print(f"VLM part, salience stage anew  {own_time * per_image:9.3f} s (from {arguments.anew} trials)")
    print(
        f"VLM part, cached               {cached * per_image:9.3f} s (of it {spent['maps'] * per_image:.4f} s reading)"
    )
    print(f"regions                        {spent['regions'] * per_image:9.3f} s")
    clip = spent["judge"]
    if arguments.size == "large":
        clip = objective.judge.seen * clip_seconds_per_region(336)
    print(f"CLIP part                      {clip * per_image:9.3f} s ({objective.judge.seen} regions)")
    print(f"cache                          {held * per_image / 1000:9.1f} kB")
    rest = clip + spent["regions"]
    for name, slow in (("plain", plain_time), ("salience stage anew", own_time)):
        ratio, whole = slow / cached, (slow + rest) / (cached + rest)
        print(f"against {name}: {ratio:.0f} times on the VLM part, {whole:.1f} times end to end")


if __name__ == "__main__":
    main()
