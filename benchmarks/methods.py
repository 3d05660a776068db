"""What each method costs at full size: random weights of the published proportions, one picture, all of VOC's classes.

    uv run python -m benchmarks.methods

Seconds of both stages for one picture, and peak memory of the process, models and texts loaded before. Methods that
start from others' runs (`classify`, `ensemble`) start from NACLIP's. Of CaR all names are kept, so that it has two
rounds of 20 classes. PnP-OVSS's models are in `benchmarks.backbones`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from PIL import Image

PHOTOGRAPH = Path(__file__).resolve().parents[1] / "pnp_core" / "_photographs" / "cat.jpg"
SIZES = {"500 x 375": (500, 375), "4000 x 3000": (4000, 3000)}
CLIPS = {"base": "ViT-B-16", "large": "ViT-L-14"}
METHODS = ("naclip", "car", "simzss", "classify", "ensemble")


def make_weights(folder: Path) -> None:
    """Random weights of OpenAI's two CLIPs, and of SimZSS's towers."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    from pnp_core.methods.simzss.weights import convert
    from tests.pnp_core.methods.simzss.released import random_state, save

    for name, model in CLIPS.items():
        made = open_clip.create_model(model, pretrained=None, force_quick_gelu=True).state_dict()
        save_file({key: value.contiguous() for key, value in made.items()}, folder / f"{name}.safetensors")
    torch.manual_seed(0)
    released = save(folder, random_state(width=768, text=512, grid=37, layers=12))
    convert(released, folder / "simzss")


def settings(method: str, weights: Path, runs: Path) -> dict[str, Any]:
    """The method's configuration."""
    base, large = (
        {"model": model, "pretrained": str(weights / f"{name}.safetensors")} for name, model in CLIPS.items()
    )
    return {
        "naclip": {"clip": base},
        "car": {"proposer": base, "classifier": large, "confidence_threshold": 0},
        "simzss": {"checkpoint": str(weights / "simzss")},
        "classify": {"clip": base, "proposals": str(runs / "naclip")},
        "ensemble": {"runs": [str(runs / "naclip")]},
    }[method]


def measure(method: str, folder: Path, size: str) -> dict[str, float]:
    """Run a method on one picture in this process."""
    import resource

    from flows.labelling import label_pictures
    from pnp_core import LabelConfig
    from pnp_core.inputs.cards import load_card
    from pnp_core.runs.plan import plan_label
    from pnp_core.runs.sharding import shard_source
    from pnp_core.stages.maps import extract_shard
    from pnp_core.stages.masks import mask_shard

    runs = folder / size.replace(" ", "")
    values = {
        "source": str(runs / "in"), "classes": load_card("voc21").names, "out": str(runs / method),
        "method": {"name": method, **settings(method, folder, runs)},
        "salience": {"candidates": {"source": "vocabulary"}},
    }  # fmt: skip
    config = LabelConfig.model_validate(values)
    plan, (shard,) = plan_label(config), shard_source(config)
    start = perf_counter()
    plan.salience.load()
    loaded = perf_counter()
    done = extract_shard(plan.salience, shard)
    seen = perf_counter()
    mask_shard(plan.masks, shard, done)
    seconds = {"load": loaded - start, "maps": seen - loaded, "masks": perf_counter() - seen}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if method == "naclip":  # others start from a finished run
        label_pictures(config)
    return {**seconds, "peak": peak}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--make", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make_weights(Path(arguments.make))
        return
    if arguments.measure:
        method, folder, size = arguments.measure
        print(json.dumps(measure(method, Path(folder), size)))
        return
    print("| method | picture | loading, s | maps, s | masks, s | peak GB |\n|---|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # Not in this process: on Linux a child's peak begins with what its parent had.
        subprocess.run([sys.executable, "-m", "benchmarks.methods", "--make", str(folder)], check=True)  # noqa: S603
        for size, sides in SIZES.items():
            source = folder / size.replace(" ", "") / "in"
            source.mkdir(parents=True)
            with Image.open(PHOTOGRAPH) as image:
                image.convert("RGB").resize(sides).save(source / "cat.jpg")
            for method in METHODS:
                command = [sys.executable, "-m", "benchmarks.methods", "--measure", method, str(folder), size]
                done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
                if done.returncode:
                    print(f"| {method} | {size} | failed: {done.stderr.strip().splitlines()[-1]} |", flush=True)
                    continue
                took = json.loads(done.stdout.splitlines()[-1])
                row = " | ".join(f"{took[part]:.1f}" for part in ("load", "maps", "masks", "peak"))
                print(f"| {method} | {size} | {row} |", flush=True)


if __name__ == "__main__":
    main()
