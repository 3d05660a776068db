"""The compiled dense CRF beside pydensecrf: CPU time of one thread, in alternating runs, and how far results agree.

    uv run python -m benchmarks.crf [--labels 2 3 5 9 21] [--runs 5]

On the bundled photographs at 500 x 375, and on pictures of VOC 2012 at their own size where the samples of datasets are
(../shared/data). Channels are those of the masks stage for random maps of a 21 x 21 grid.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image

from pnp_core.masks.config import CrfConfig
from pnp_core.masks.refine import open_refiner
from pnp_core.masks.refine.fast_crf import CHOICE, load_library, refine_batch
from pnp_core.methods.pnp.channels import channels

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = ROOT / "pnp_core" / "_photographs"
VOC = ROOT.parent / "shared" / "data" / "VOCdevkit" / "VOC2012" / "JPEGImages"
CONFIG = CrfConfig()


def dense(scores: np.ndarray, image: np.ndarray, config: CrfConfig) -> np.ndarray:
    """By pydensecrf."""
    return open_refiner(config.model_copy(update={"name": "dense"}))([scores], [image])[0]


def refine(scores: np.ndarray, image: np.ndarray, config: CrfConfig) -> np.ndarray:
    """By our own."""
    return refine_batch([scores], [image], config)[0]


@dataclass
class Compared:
    """Of all pictures of a set with so many labels."""

    dense: float = 0
    fast: float = 0
    plain: float = 0
    pixels: int = 0
    differing: int = 0
    furthest: float = 0


def photographs() -> list[np.ndarray]:
    """Those that come with the package, all of one size."""
    return [np.array(Image.open(file).convert("RGB").resize((500, 375))) for file in sorted(PHOTOGRAPHS.glob("*.jpg"))]


def voc(most: int) -> list[np.ndarray]:
    """So many pictures of the sample, if it is there."""
    return [np.array(Image.open(file).convert("RGB")) for file in sorted(VOC.glob("*.jpg"))[:most]]


def drawn_scores(image: np.ndarray, labels: int, seed: int) -> np.ndarray:
    """Background and classes as the masks stage gives them to the CRF."""
    rng = np.random.default_rng(seed)
    maps = np.where(rng.random((labels - 1, 21, 21)) > 0.7, rng.random((labels - 1, 21, 21)), 0).astype(np.float32)
    height, width = image.shape[:2]
    return channels(maps, height, width, background=True, sigma=0.05 * max(height, width))


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def with_build(build: str, scores: np.ndarray, image: np.ndarray) -> np.ndarray:
    os.environ[CHOICE] = build
    try:
        return refine(scores, image, CONFIG)
    finally:
        del os.environ[CHOICE]


def compare(images: Sequence[np.ndarray], labels: int, runs: int) -> Compared:
    """Time and agreement with so many labels."""
    total = Compared()
    for seed, image in enumerate(images):
        scores = drawn_scores(image, labels, seed)
        ways: dict[str, Callable[[], object]] = {
            "dense": lambda s=scores, p=image: dense(s, p, CONFIG),
            "fast": lambda s=scores, p=image: refine(s, p, CONFIG),
            "plain": lambda s=scores, p=image: with_build("plain", s, p),
        }
        times = [{name: cpu_seconds(way) for name, way in ways.items()} for _ in range(runs)]
        for name in ways:
            setattr(total, name, getattr(total, name) + min(one[name] for one in times))
        found, expected = refine(scores, image, CONFIG), dense(scores, image, CONFIG)
        total.pixels += expected[0].size
        total.differing += int((found.argmax(0) != expected.argmax(0)).sum())
        total.furthest = max(total.furthest, float(np.abs(found - expected).max()))
    return total


def print_comparison(title: str, images: Sequence[np.ndarray], labels: Sequence[int], runs: int) -> None:
    print(f"{title}: {len(images)} pictures, CPU ms a picture, one thread, best of {runs} alternating runs")
    wide = load_library("plain").has_avx2
    print("| labels | pydensecrf | fast | times | without AVX2 | pixels | of another label | largest difference |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    for number in labels:
        one = compare(images, number, runs)
        each = 1000 / len(images)
        plain = f"{one.dense / one.plain:.1f}" if wide else "the same"
        print(
            f"| {number} | {one.dense * each:.0f} | {one.fast * each:.0f} | {one.dense / one.fast:.1f} | {plain} |"
            f" {one.pixels} | {one.differing} | {one.furthest:.0e} |",
            flush=True,
        )


def print_threads(images: Sequence[np.ndarray], labels: int, runs: int) -> None:
    """Wall time of two threads over pictures beside one, and how much more of the processor they take.

    On a machine with other work only the latter tells something: two free cores do at best 2 over it.
    """
    scores = [drawn_scores(image, labels, seed) for seed, image in enumerate(images)]
    batch, several = [*images] * 2, scores * 2
    wall, cpu = {1: float("inf"), 2: float("inf")}, {1: float("inf"), 2: float("inf")}
    for _ in range(runs):
        for threads in wall:
            start, own = time.perf_counter(), time.process_time()
            refine_batch(several, batch, CONFIG, threads)
            wall[threads] = min(wall[threads], time.perf_counter() - start)
            cpu[threads] = min(cpu[threads], time.process_time() - own)
    print(
        f"{len(batch)} pictures, {labels} labels: two threads are {wall[1] / wall[2]:.2f} times as fast as one,"
        f" and take {cpu[2] / cpu[1]:.2f} times its CPU time",
        flush=True,
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="+", default=[2, 3, 5, 9, 21])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--voc", type=int, default=6, help="pictures of VOC")
    arguments = parser.parse_args()
    print_comparison("Photographs", photographs(), arguments.labels, arguments.runs)
    if images := voc(arguments.voc):
        print_comparison("VOC 2012", images, arguments.labels, max(2, arguments.runs // 2))
    for labels in (2, 5, 21):
        print_threads(photographs(), labels, arguments.runs)


if __name__ == "__main__":
    main()
