"""The pruned graph beside the plain full backward, at the proportions of BLIP-large and 336 pixels.

    uv run python -m benchmarks.salience --threads 1 --passes 2

Both sides run the same picture, captions, layer, head and DropOut passes, in turn; the plain side is
the stock transformers forward and a backward through everything (`tests/pnp_core/methods/pnp/backbones/reference.py`).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from transformers import BlipForImageTextRetrieval

from pnp_core.methods.pnp.backbones import load_backbone, locate_checkpoint
from pnp_core.methods.pnp.config import BackboneConfig, CaptionConfig, DropoutConfig
from pnp_core.methods.pnp.dropout import salience_dropout
from pnp_core.methods.pnp.prompts import build_prompts, stack_prompts
from tests.models import LARGE, save_random_blip
from tests.pnp_core.methods.pnp.backbones.reference import FullBackward

NAMES = ["car", "hot-air balloon", "traffic light"]


def seconds(work) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Time both sides in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--passes", type=int, default=2, help="DropOut passes per picture (4 in the presets)")
    parser.add_argument("--runs", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        save_random_blip(Path(folder), LARGE)
        exact, half = (
            BackboneConfig(checkpoint=folder, image_size=336, dtype=dtype) for dtype in ("float32", "bfloat16")
        )
        pruned = load_backbone(exact, locate_checkpoint(exact), "cpu")
        pruned_half = load_backbone(half, locate_checkpoint(half), "cpu")
        plain = FullBackward(BlipForImageTextRetrieval.from_pretrained(folder).eval())
    image = torch.randn(3, 336, 336, generator=torch.Generator().manual_seed(0))
    prompts = build_prompts(NAMES, CaptionConfig(), pruned)
    config = DropoutConfig(iterations=arguments.passes, amount=10)

    def run_plain():
        plain.dropout(image, prompts, 7, 9, iterations=arguments.passes, count=10, patch=16)

    def run_pruned(backbone):
        salience_dropout(backbone, image[None], stack_prompts([prompts]), config, 7, 9)

    run_pruned(pruned)
    run_pruned(pruned_half)
    for run in range(arguments.runs):
        full = seconds(run_plain)
        for name, backbone in (("pruned float32", pruned), ("pruned bfloat16", pruned_half)):
            took = seconds(lambda backbone=backbone: run_pruned(backbone))
            print(
                f"run {run}: plain full backward {full:6.2f} s/picture, {name} {took:6.2f} s/picture, "
                f"{full / took:4.1f} times faster",
                flush=True,
            )


if __name__ == "__main__":
    main()
