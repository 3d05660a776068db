"""What a GPU does with salience, blur and CRF, beside the authors' full backward on the same card. At most 4 minutes.

    python -m benchmarks.gpu --out gpu.json
    python -m benchmarks.gpu --device cpu --small --out small.json    # does it run at all

Every row is printed and written as soon as it is there; a part that fails says so and the next one begins. Weights are
random, of the proportions of BLIP-large. Needs torch, transformers, numpy, pillow, pydantic, jaxtyping; no pydensecrf.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks import gpu_masks

if TYPE_CHECKING:
    from pnp_core.methods.pnp.backbones.fusion import FusionModel
    from pnp_core.methods.pnp.dropout import DropoutSalience
    from pnp_core.methods.pnp.prompts import Prompts

PASSES, DROPPED = 4, 10
PRECISIONS = ("float32", "tf32", "bfloat16")
"""Of the image encoder; tf32 is float32 whose matrix products, on both sides, are rounded to 10 bits."""


@dataclass
class Report:
    """Rows of results, on the screen and in a file at once."""

    path: Path
    device: torch.device
    limit: float
    started: float = field(default_factory=time.perf_counter)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.perf_counter() - self.started > self.limit

    def add(self, part: str, **values: Any) -> None:
        """Write one row."""
        rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}
        self.rows.append({"part": part, **rounded})
        at = time.perf_counter() - self.started
        print(f"[{at:6.1f} s] {part}: " + ", ".join(f"{k} {v}" for k, v in rounded.items()), flush=True)
        self.path.write_text(json.dumps(self.rows, indent=1))

    def measure(self, work: Callable[[], object], seconds: float = 0.8, most: int = 10) -> tuple[float, float | None]:
        """Median seconds of a call after a warm-up, and peak GB of GPU memory."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self.timed(work)
        times: list[float] = []
        while len(times) < most and (len(times) < 2 or sum(times) < seconds):
            times.append(self.timed(work))
        peak = torch.cuda.max_memory_allocated() / 1e9 if self.device.type == "cuda" else None
        return float(np.median(times)), peak

    def timed(self, work: Callable[[], object]) -> float:
        """Seconds of one call, until the device has finished it."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def wait(self) -> None:
        """Until the device has nothing to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Models:
    """A BLIP of random weights on the device, in the forms that are measured."""

    device: torch.device
    small: bool

    @property
    def chosen(self) -> tuple[int, int]:
        """Layer and head, as in the authors' code."""
        return (1, 1) if self.small else (7, 9)

    @cached_property
    def stock(self) -> Any:
        """The model of transformers."""
        from tests.models import LARGE, SMALL, random_blip

        with self.device:  # where random numbers are drawn faster
            return random_blip(SMALL if self.small else LARGE).to(self.device)

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        from training.tiny_blip import build_tokenizer

        return build_tokenizer()

    @cached_property
    def _half(self) -> Any:
        return copy.deepcopy(self.stock.vision_model)

    def pruned(self, precision: str, side: int) -> FusionModel:
        """The project's own forward."""
        from pnp_core.methods.pnp.backbones.fusion import BlipVision, FusionModel
        from pnp_core.methods.pnp.config import BackboneConfig

        dtype = "bfloat16" if precision == "bfloat16" else "float32"
        vision = self._half if dtype == "bfloat16" else self.stock.vision_model
        config = BackboneConfig(image_size=side, dtype=dtype)
        first = self.tokenizer.convert_tokens_to_ids("[ENC]")
        stock = self.stock.requires_grad_(False)
        return FusionModel(BlipVision(vision.requires_grad_(False)), stock, self.tokenizer, config, self.device, first)

    def captions(self, counts: Sequence[int]) -> list[Prompts]:
        """A caption for each picture, of so many classes."""
        from pnp_core.inputs.scenes.shapes import CLASS_NAMES
        from pnp_core.methods.pnp.config import CaptionConfig
        from pnp_core.methods.pnp.prompts import build_prompts

        encoder = self.pruned("float32", 48 if self.small else 336)
        made = {n: build_prompts(CLASS_NAMES[:n], CaptionConfig(), encoder) for n in set(counts)}
        return [made[n] for n in counts]


def drawn_pixels(number: int, side: int, device: torch.device) -> torch.Tensor:
    """Normalised model pixels of noise, the first ones the same whatever the number."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randn(3, side, side, generator=generator) for _ in range(number)]).to(device)


def one_to_five(number: int) -> list[int]:
    """Numbers of classes of so many pictures."""
    return [1 + n % 5 for n in range(number)]


def run_pruned(models: Models, precision: str, side: int, counts: Sequence[int]) -> Callable[[], DropoutSalience]:
    """A call of the project's Salience DropOut on a batch."""
    from pnp_core.methods.pnp.config import DropoutConfig
    from pnp_core.methods.pnp.dropout import salience_dropout
    from pnp_core.methods.pnp.prompts import stack_prompts

    backbone = models.pruned(precision, side)
    pixels = drawn_pixels(len(counts), side, models.device)
    prompts = stack_prompts(models.captions(counts)).to(models.device)
    layer, head = models.chosen
    dropped = 2 if models.small else DROPPED
    config = DropoutConfig(iterations=PASSES, amount=dropped)

    def run() -> DropoutSalience:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        try:
            return salience_dropout(backbone, pixels, prompts, config, layer, head)
        finally:
            torch.set_float32_matmul_precision("highest")

    return run


def run_plain(models: Models, side: int, number: int) -> Callable[[], None]:
    """The authors' way for a batch of one caption: stock forward, and a backward through everything, in each pass.

    At its best: it chooses no patches, and its own code takes one picture at a time.
    """
    from tests.pnp_core.methods.pnp.backbones.reference import FullBackward

    plain = FullBackward(copy.deepcopy(models.stock))
    (caption,) = models.captions([3])
    ids, mask = (t.to(models.device).expand(number, -1) for t in (caption.ids, caption.mask))
    pixels = drawn_pixels(number, side, models.device)

    def run() -> None:
        for _ in range(PASSES):
            plain.model.zero_grad()
            scores = plain.model(
                input_ids=ids, attention_mask=mask.long(), pixel_values=pixels, interpolate_pos_encoding=True
            ).itm_score
            scores[:, 1].sum().backward()

    return run


def salience_sides(small: bool) -> dict[int, tuple[int, ...]]:
    """Model pixels, and batches for them."""
    return {48: (1, 2)} if small else {336: (1, 8, 32, 64), 768: (1, 4, 16)}


def measure_plain(report: Report, models: Models) -> None:
    """Authors' way, alone and in a batch."""
    for side, batches in salience_sides(models.small).items():
        for number in batches[:2]:
            took, peak = report.measure(run_plain(models, side, number), most=5)
            report.add("salience", way="full backward", side=side, batch=number, per_second=number / took, peak_gb=peak)


def measure_pruned(report: Report, models: Models) -> None:
    """The project's way: precisions, batches, and the share of the time in which the GPU computes."""
    for side, batches in salience_sides(models.small).items():
        for precision in PRECISIONS:
            for number in batches:
                if report.over:
                    return
                run = run_pruned(models, precision, side, one_to_five(number))
                took, peak = report.measure(run)
                report.add(
                    "salience", way=precision, side=side, batch=number, per_second=number / took, peak_gb=peak,
                    busy=busy_share(report, run, took),
                )  # fmt: skip


def measure_captions(report: Report, models: Models) -> None:
    """Captions of 1 to 5 classes each."""
    side, number = (48, 2) if models.small else (336, 32)
    for classes in range(1, 6):
        took, _ = report.measure(run_pruned(models, "bfloat16", side, [classes] * number), most=3)
        report.add("captions", side=side, batch=number, classes=classes, per_second=number / took)


def busy_share(report: Report, run: Callable[[], object], took: float) -> float | None:
    """Seconds of kernels, by torch's profiler, as a share of the time without it; None where it sees none."""
    if report.device.type != "cuda":
        return None
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    try:
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            report.timed(run)
        kernels = sum(e.self_device_time_total for e in profiled.key_averages() if e.device_type == DeviceType.CUDA)
    except (RuntimeError, AttributeError) as error:  # no reason to lose the rows that follow
        print(f"no profile: {error}", flush=True)
        return None
    return kernels / 1e6 / took or None


def measure_agreement(report: Report, models: Models) -> None:
    """Precisions against float32, two runs of each against each other, the authors' way, the CPU."""
    for side in salience_sides(models.small):
        number = 2 if models.small else 8
        exact = run_pruned(models, "float32", side, one_to_five(number))()
        for precision in PRECISIONS:
            run = run_pruned(models, precision, side, one_to_five(number))
            found, again = run(), run()
            repeats = torch.equal(found.maps, again.maps)
            report.add("agreement", side=side, way=precision, **_differences(exact, found), repeats=repeats)
    _agreement_with_plain(report, models)
    if models.device.type != "cpu" and not report.over:
        _agreement_with_cpu(report, models)


def _differences(exact: DropoutSalience, found: DropoutSalience) -> dict[str, Any]:
    """Of the first pass the largest difference as a share of its picture's peak; of the last the patches dropped."""
    first, other = exact.maps[:, 0].cpu(), found.maps[:, 0].cpu()
    peak = first.amax((1, 2), keepdim=True).clamp(min=1e-30)
    wanted, got = exact.dropped[:, -1].cpu(), found.dropped[:, -1].cpu()
    return {
        "largest_difference": float(((first - other).abs() / peak).max()),
        "same_patches": f"{int((wanted & got).sum())}/{int(wanted.sum())}",
    }


def _agreement_with_plain(report: Report, models: Models) -> None:
    from pnp_core.methods.pnp.dropout import DropoutSalience
    from tests.pnp_core.methods.pnp.backbones.reference import FullBackward

    side = next(iter(salience_sides(models.small)))
    found = run_pruned(models, "float32", side, [3])()
    (caption,) = models.captions([3])
    caption = replace(caption, ids=caption.ids.to(models.device), mask=caption.mask.to(models.device))
    patch, count = (8, 2) if models.small else (16, DROPPED)
    maps, dropped = FullBackward(copy.deepcopy(models.stock)).dropout(
        *drawn_pixels(1, side, models.device), caption, *models.chosen, iterations=PASSES, count=count, patch=patch
    )
    exact = DropoutSalience(maps[None], dropped[None], found.itm)
    report.add("agreement", side=side, way="float32 beside the full backward", **_differences(exact, found))


def _agreement_with_cpu(report: Report, models: Models) -> None:
    side = next(iter(salience_sides(models.small)))
    found = run_pruned(models, "float32", side, [3])()
    elsewhere = Models(torch.device("cpu"), models.small)
    elsewhere.__dict__["stock"] = copy.deepcopy(models.stock).cpu()
    exact = run_pruned(elsewhere, "float32", side, [3])()
    report.add("agreement", side=side, way="float32 beside the CPU", **_differences(exact, found))


def about(report: Report) -> None:
    """The machine."""
    name = torch.cuda.get_device_name() if report.device.type == "cuda" else platform.processor()
    import transformers

    report.add("machine", device=name, torch=torch.__version__, transformers=transformers.__version__)


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """All rows as Markdown, a table for each part."""
    lines: list[str] = []
    for part in dict.fromkeys(row["part"] for row in rows):
        own = [row for row in rows if row["part"] == part]
        columns = list(dict.fromkeys(name for row in own for name in row if name != "part"))
        lines += ["", part, "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(str(row.get(name, "")) for name in columns) + " |" for row in own]
    return "\n".join(lines)


def parts(report: Report, models: Models) -> Iterator[Callable[[], None]]:
    """What is measured, the most wanted first."""
    small = models.small
    yield lambda: about(report)
    yield lambda: gpu_masks.measure_crf(report, small)
    yield lambda: gpu_masks.measure_agreement(report, small)
    yield lambda: gpu_masks.measure_channels(report, small)
    yield lambda: measure_plain(report, models)
    yield lambda: measure_pruned(report, models)
    yield lambda: measure_agreement(report, models)
    yield lambda: measure_captions(report, models)
    yield lambda: gpu_masks.measure_crf_parts(report, small)


def main() -> None:
    """Measure part after part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file, written anew after each row")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a tiny model and tiny pictures")
    parser.add_argument("--limit", type=float, default=240, help="seconds after which no further part begins")
    arguments = parser.parse_args()
    report = Report(arguments.out, torch.device(arguments.device), arguments.limit)
    models = Models(report.device, arguments.small)
    for part in parts(report, models):
        if report.over:
            report.add("stopped", reason="the time is up")
            break
        try:
            part()
        except Exception as error:  # the machine is lent once: what else can be measured is
            report.add("failed", error=f"{type(error).__name__}: {error}"[:300])
            traceback.print_exc()
    print(tables(report.rows), flush=True)


if __name__ == "__main__":
    main()
