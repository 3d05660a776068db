"""Threshold, resize, blur and CRF of one picture, step by step, beside the plain way to resize and blur.

uv run python -m benchmarks.masks
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from pnp_core.masks.config import CrfConfig
from pnp_core.masks.grids import min_max
from pnp_core.masks.refine import open_refiner
from pnp_core.methods.pnp.channels import channels


def median_ms(work: Callable[[], object], runs: int) -> float:
    """Median wall time of a call, after one warm-up."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def plain_channels(maps: np.ndarray, height: int, width: int, sigma: float) -> np.ndarray:
    """Interpolate each map to full size, add the background, filter each channel."""
    large = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[None], (height, width), mode="bilinear", align_corners=True
    )[0].numpy()
    stacked = np.concatenate([(large == 0).all(0)[None].astype(np.float32), large])
    return min_max(np.stack([gaussian_filter(channel, sigma, mode="reflect", truncate=4.0) for channel in stacked]))


def main() -> None:
    """Print times and ratios for one picture size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    height, width = arguments.height, arguments.width
    rng = np.random.default_rng(0)
    maps = np.where(rng.random((arguments.classes, 21, 21)) > 0.7, rng.random((arguments.classes, 21, 21)), 0)
    maps = maps.astype(np.float32)
    # As smooth as a photograph: the CRF's lattice grows with the number of colours side by side.
    image = gaussian_filter(rng.random((height, width, 3)), (12, 12, 0))
    image = (255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)
    sigma = 0.05 * max(height, width)
    ours = channels(maps, height, width, background=True, sigma=sigma)
    theirs = plain_channels(maps, height, width, sigma)
    fast = median_ms(lambda: channels(maps, height, width, True, sigma), arguments.runs)
    plain = median_ms(lambda: plain_channels(maps, height, width, sigma), arguments.runs)
    crf = median_ms(lambda: open_refiner(CrfConfig(name="dense"))([ours], [image]), 3)
    print(f"{width}x{height}, {arguments.classes} classes and background")
    print(f"resize + blur: {fast:.1f} ms by matrices, {plain:.1f} ms plainly, {plain / fast:.1f} times faster")
    print(f"largest difference {np.abs(ours - theirs).max():.1e}")
    print(f"dense CRF (pydensecrf): {crf:.0f} ms")


if __name__ == "__main__":
    main()
