"""How busy a fast device is kept: a model simulated by a sleep of 4.5 ms a picture, everything else as it is.

    uv run python -m benchmarks.device

Share of the wall time in which the device is at work: of the salience stage; of salience and masks, where the masks of
a shard are a sleep too, as on a machine with cores enough for them; and of both with the masks made by the cores there
are, at the size of photographs and of the demo's scenes, with the stages one after the other and overlapping.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "simulated"))

PHOTOGRAPHS = Path(__file__).resolve().parents[1] / "pnp_core" / "_photographs"
CLASSES = ("cat", "person")
PER_SHARD = 100
SECONDS = 0.0045


def draw(folder: Path, images: int, size: tuple[int, int]) -> None:
    """So many photographs of a size."""
    folder.mkdir()
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))
    encoded = []
    for file in files:
        with Image.open(file) as opened:
            opened.convert("RGB").resize(size).save(folder / "one.jpg", quality=90)
        encoded.append((folder / "one.jpg").read_bytes())
    (folder / "one.jpg").unlink()
    for number in range(images):
        (folder / f"{number:06d}.jpg").write_bytes(encoded[number % len(encoded)])


def busy(source: Path, out: Path, masks: str, overlap: bool) -> tuple[float, float]:
    """Share of time in which the device works, and pictures a second.

    Args:
        masks: `none`, `slept`: as long as the device takes, less a tenth, or `made`.
    """
    from simulated_device import LoadedDevice

    from flows.dispatch.base import Stage
    from flows.dispatch.inline import Inline
    from flows.dispatch.stages import run_side_by_side, run_stage
    from pnp_core import LabelConfig
    from pnp_core.data import RunSummary, StageResult
    from pnp_core.runs.plan import plan_label
    from pnp_core.runs.sharding import shard_source
    from pnp_core.stages.config import DispatchConfig
    from tasks.masks import task_mask_shard
    from tasks.runtime import StageTask
    from tasks.salience import task_extract_shard

    values: dict[str, Any] = {"source": str(source), "classes": CLASSES, "out": str(out), "images_per_shard": PER_SHARD}
    values |= {"method": {"name": "simulated-device", "seconds": SECONDS}}
    values |= {"salience": {"candidates": {"source": "vocabulary"}}}
    config = LabelConfig.model_validate(values)
    plan, shards = plan_label(config), shard_source(config)
    salience = Stage("salience", task_extract_shard, plan.salience, plan.salience.folder)

    def sleep_instead(job: Any, shard: Any, before: Any) -> StageResult:
        time.sleep(0.9 * SECONDS * shard.samples)
        return StageResult("masks", shard.name, shard.samples, 0, record_sha256="", resumed=False)

    slept = StageTask(sleep_instead, "masks")
    made = Stage("masks", task_mask_shard if masks == "made" else slept, plan.masks, plan.masks.folder)
    summary, here = RunSummary(str(out)), Inline(DispatchConfig())
    work: Any = [(shard, None) for shard in shards]
    start, before = time.perf_counter(), LoadedDevice.slept
    if overlap:
        run_side_by_side(salience, made, work, summary, here, "run")
    else:
        work = run_stage(salience, work, summary, here)
        if masks != "none":
            run_stage(made, work, summary, here)
    seconds = time.perf_counter() - start
    return (LoadedDevice.slept - before) / seconds, sum(shard.samples for shard in shards) / seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--made", type=int, default=400, help="pictures where masks are made")
    arguments = parser.parse_args()
    sizes = {"500 x 375": (500, 375), "192 x 192": (192, 192)}
    ways = [("none", False), ("slept", False), ("slept", True), ("made", False), ("made", True)]
    print("| pictures | masks | stages | device busy | pictures a second |\n|---|---|---|--:|--:|")
    with tempfile.TemporaryDirectory() as temporary:
        for name, size in sizes.items():
            for masks, overlap in ways:
                images = arguments.made if masks == "made" else arguments.images
                source = Path(temporary) / f"{size[0]}-{images}"
                if not source.exists():
                    draw(source, images, size)
                share, rate = busy(source, Path(temporary) / f"{name}-{masks}-{overlap}", masks, overlap)
                stages = "overlapping" if overlap else "salience alone" if masks == "none" else "in turn"
                print(f"| {images} of {name} | {masks} | {stages} | {share:.0%} | {rate:.1f} |", flush=True)


if __name__ == "__main__":
    main()
