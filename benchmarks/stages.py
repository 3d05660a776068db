"""The masks stage as it is beside the one of one thread and pydensecrf, and what the demo takes beyond its imports.

    uv run python -m benchmarks.stages

Pictures a second of the masks stage alone for the demo's scenes, and for the validation pictures of VOC 2012 where the
samples of datasets are (../shared/data); how many pixels differ, and mIoU of both. The same salience for both. Then
wall seconds of `pnp-ovss demo` into an empty folder, and of its imports alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

VOC = Path(__file__).resolve().parents[2] / "shared" / "data" / "VOCdevkit"
BEFORE: dict[str, Any] = {"masks": {"crf": {"name": "dense"}}, "runtime": {"threads": 1}}
NOW: dict[str, Any] = {}
IMPORTS = """
from pnp_core.runs.plan import plan_eval
import flows.pipelines.evaluation, flows.pipelines.labelling, transformers.models.blip.modeling_blip
"""


def masks_stage(values: dict[str, Any], out: Path) -> dict[str, tuple[float, list[np.ndarray], float]]:
    """Pictures a second, label maps and mIoU of both ways."""
    from pnp_core import EvalConfig
    from pnp_core.inputs.images import decode_label_map
    from pnp_core.runs.plan import plan_eval
    from pnp_core.runs.sharding import shard_dataset
    from pnp_core.stages.maps import extract_shard
    from pnp_core.stages.masks import mask_shard, read_masks
    from pnp_core.stages.scores import merge_scores, score_shard

    found = {}
    config = EvalConfig.model_validate({**values, "out": str(out)})
    shards = shard_dataset(config)
    salience = {shard.name: extract_shard(plan_eval(config).salience, shard) for shard in shards}
    for name, settings in (("before", BEFORE), ("now", NOW)):
        plan = plan_eval(EvalConfig.model_validate({**values, **settings, "out": str(out)}))
        start = time.perf_counter()
        results = {shard.name: mask_shard(plan.masks, shard, salience[shard.name]) for shard in shards}
        seconds = time.perf_counter() - start
        assert plan.score
        for shard in shards:
            score_shard(plan.score, shard, results[shard.name])
        scores = merge_scores(plan.score, shards)
        masks = [decode_label_map(png) for s in shards for png in read_masks(plan.masks.folder, s.name).values()]
        found[name] = len(masks) / seconds, masks, scores["miou"]
    return found


def print_masks(title: str, values: dict[str, Any]) -> None:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        found = masks_stage(values, Path(folder) / "run")
    (before, old, miou_before), (now, new, miou_now) = found["before"], found["now"]
    differ = sum(int((a != b).sum()) for a, b in zip(old, new, strict=True))
    pixels = sum(mask.size for mask in new)
    rates = f"{before:.1f} | {now:.1f} | {now / before:.1f}"
    print(f"| {title} | {rates} | {differ} of {pixels:,} | {miou_before:.4f} and {miou_now:.4f} |", flush=True)


def seconds_of(*command: str) -> float:
    """Wall time of a process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)  # noqa: S603
    return time.perf_counter() - start


def main() -> None:
    """Print the table and the demo's times."""
    print("| masks stage | before, pictures/s | now | times | pixels that differ | mIoU |\n|---|--:|--:|--:|--:|---|")
    print_masks("scenes of the demo", {"dataset": "scenes", "limit": 200})
    if VOC.exists():
        print_masks("VOC val", {"dataset": "voc21", "data": str(VOC), "split": "val", "limit": 40})
    imports = min(seconds_of("-c", IMPORTS) for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        demo = seconds_of("-c", "from flows.cli import main; main()", "demo", "--out", f"{folder}/demo")
    print(f"\ndemo {demo:.1f} s, its imports {imports:.1f} s, beyond them {demo - imports:.1f} s")


if __name__ == "__main__":
    main()
