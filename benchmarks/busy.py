"""What a busy process beside it costs each stage: threads that spin while they wait against threads that sleep.

    uv run python -m benchmarks.busy

Milliseconds a picture of the bundled photo model's salience and of the masks, on an idle machine and beside one process
that never waits. Every figure is the best of some runs in processes of their own, which take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PHOTOGRAPHS = Path(__file__).resolve().parents[1] / "pnp_core" / "_photographs"
CLASSES = ("cat", "person", "cup", "rocket", "camera")
# Naming one of the settings leaves OpenMP to itself (`pnp_core._waiting`); this one means nothing to GNU's.
WAYS = {"spinning": {"KMP_BLOCKTIME": "200"}, "asleep": {}}
_NAMES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")


def measure(folder: Path) -> dict[str, float]:
    """Milliseconds a picture of both stages, in this process; the second of two runs, when all is loaded."""
    from pnp_core import LabelConfig
    from pnp_core.runs.plan import plan_label
    from pnp_core.runs.sharding import shard_source
    from pnp_core.stages.maps import extract_shard
    from pnp_core.stages.masks import mask_shard

    taken: dict[str, float] = {}
    for turn in range(2):
        config = LabelConfig(source=str(PHOTOGRAPHS), classes=CLASSES, out=str(folder / str(turn)))
        plan, (shard,) = plan_label(config), shard_source(config)
        start = time.perf_counter()
        done = extract_shard(plan.salience, shard)
        taken["salience"] = time.perf_counter() - start
        start = time.perf_counter()
        mask_shard(plan.masks, shard, done)
        taken["masks"] = time.perf_counter() - start
        taken = {stage: 1000 * seconds / shard.samples for stage, seconds in taken.items()}
    return taken


@contextmanager
def beside_a_busy_process(busy: bool) -> Iterator[None]:
    """A process that never waits, while the block runs."""
    if not busy:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def in_a_process(way: str) -> dict[str, float]:
    """What `measure` says in a process whose threads wait in one of the ways."""
    kept = {name: value for name, value in os.environ.items() if name not in _NAMES}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.busy", "--measure", folder]
        done = subprocess.run(command, env={**kept, **WAYS[way]}, capture_output=True, text=True, check=True)  # noqa: S603
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    best: dict[tuple[str, str, bool], float] = {}
    for _ in range(arguments.runs):
        for busy in (False, True):
            for way in WAYS:
                with beside_a_busy_process(busy):
                    for stage, value in in_a_process(way).items():
                        best[stage, way, busy] = min(value, best.get((stage, way, busy), value))
    print("| stage | threads | idle, ms | beside a busy process, ms | times |\n|---|---|--:|--:|--:|")
    for stage in ("salience", "masks"):
        for way in WAYS:
            idle, busy = best[stage, way, False], best[stage, way, True]
            print(f"| {stage} | {way} | {idle:.0f} | {busy:.0f} | {busy / idle:.1f} |")


if __name__ == "__main__":
    main()
