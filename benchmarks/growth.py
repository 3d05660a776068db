"""What a corpus costs beside the model: many tiny pictures, and a method that returns at once.

    uv run python -m benchmarks.growth --images 100000

Wall seconds, seconds of the stages, and peak memory of `label-corpus`: the first run, one that finds nothing new, and
one that finds a hundredth more; and what that makes of a million pictures, if everything grows with their number.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TOY = Path(__file__).resolve().parents[1] / "tests" / "toy_method"
"""A method without a model."""
SIDE = 16
PER_FOLDER = 1000
SETTINGS = "{method: {name: toy, grid: 4}, masks: {crf: {name: 'off'}, confidence: false}, images_per_batch: %d}"
MILLION = 1_000_000


def draw(folder: Path, numbers: range) -> None:
    """Tiny pictures, all different, last changed an hour ago."""
    old = time.time() - 3600
    for number in numbers:
        file = folder / f"{number // PER_FOLDER:04d}" / f"{number:07d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((SIDE, SIDE, 3), 40, np.uint8)
        pixels[4:12, 4:12] = [number >> 16 & 255, number >> 8 & 255, number & 255]
        Image.fromarray(pixels).save(file, compress_level=1)
        os.utime(file, (old, old))


def label(folder: Path, out: Path, settings: Path) -> tuple[float, dict[str, Any]]:
    """Wall seconds of `label-corpus`, and what it says."""
    program = "from flows.cli import main; main()"
    command = [sys.executable, "-c", program, "label-corpus", str(folder), "--classes", "heart,star"]
    command += ["--out", str(out), "--config", str(settings), "--json"]
    start = time.monotonic()
    paths = {"PYTHONPATH": f"{TOY}{os.pathsep}{Path.cwd()}"}
    done = subprocess.run(command, env={**os.environ, **paths}, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    return time.monotonic() - start, json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--per-batch", type=int, default=10_000)
    arguments = parser.parse_args()
    count = arguments.images
    print("| run | labelled | wall s | of stages s | ms a picture there is | peak GB so far | a million, min |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    runs = {"first": range(count), "nothing new": range(0), "1 % more": range(count, count + count // 100)}
    with tempfile.TemporaryDirectory() as temporary:
        folder, out, settings = (Path(temporary) / name for name in ("corpus", "out", "settings.yaml"))
        settings.write_text(SETTINGS % arguments.per_batch)
        for name, more in runs.items():
            draw(folder, more)
            seconds, said = label(folder, out, settings)
            stages = ", ".join(f"{stage} {one['seconds']:.0f}" for stage, one in said["stages"].items())
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            each = 1000 * seconds / said["pictures"]
            million = each / 1000 * MILLION / 60
            row = (name, said["labelled"], f"{seconds:.0f}", stages, f"{each:.2f}", f"{peak:.2f}", f"{million:.1f}")
            print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    main()
