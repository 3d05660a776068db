"""What thousands of classes cost: seconds and memory of the maps by the number of classes, a process each.

uv run python -m benchmarks.vocabulary SOURCE [--limit 64] [--preset tiny] [--classes 20,200,2000,20000]

All classes but the first are made up ("thing 17"): it is what many names cost, not what they find. Ranked by the
bundled CLIP, the best 128 are matched. The first picture encodes the texts, into a cache
that is empty before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder of pictures")
    parser.add_argument("--limit", type=int, default=64, help="pictures")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--classes", default="20,200,2000,20000")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.source, options.limit, options.preset, options.one)))
        return
    print("| classes | texts, once (s) | maps (s a picture) | memory (GB) |\n|---|---|---|---|")
    for number in options.classes.split(","):
        with tempfile.TemporaryDirectory() as cache:
            arguments = [options.source, "--limit", str(options.limit), "--preset", options.preset, "--one", number]
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-m", "benchmarks.vocabulary", *arguments],
                env={**os.environ, "XDG_CACHE_HOME": cache}, stdout=subprocess.PIPE, check=True,
            )  # fmt: skip
        row = json.loads(done.stdout)
        times = " | ".join(f"{row[name]:.2f}" for name in ("texts", "each"))
        print(f"| {int(number):,} | {times} | {row['gb']:.2f} |", flush=True)


def measure(source: str, limit: int, preset: str, classes: int) -> dict[str, float]:
    """Seconds for the texts, seconds a picture in a shard of them, and the process's peak."""
    from pnp_core.config import LabelConfig
    from pnp_core.configuring import build
    from pnp_core.data import silent
    from pnp_core.inputs.images import decode_image
    from pnp_core.runs.plan import open_images, plan_label
    from pnp_core.stages.maps import extract_maps

    names = ("cat", *(f"thing {number}" for number in range(1, classes)))
    candidates = {"source": "itm", "ranker": "clip", "clip": {"model": "tiny"}}
    given = {"source": source, "classes": names, "out": "unused", "preset": preset}
    config = build(LabelConfig, {**given, "salience": {"candidates": candidates}, "runtime": {"device": "cpu"}})
    plan = plan_label(config)
    loaded = plan.salience.load()
    samples = list(islice(open_images(config).samples(), limit))

    def seconds(some: list) -> float:
        start = time.perf_counter()
        for _ in extract_maps(some, plan.salience, silent, loaded, lambda one: decode_image(one.image, 10**9)):
            pass
        return time.perf_counter() - start

    cold, warm = seconds(samples[:1]), seconds(samples[:1])
    each = seconds(samples) / len(samples)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"texts": cold - warm, "each": each, "gb": int(peak.split()[1]) / 1e6}


if __name__ == "__main__":
    main()
