"""The masks' part of `benchmarks.gpu`: dense CRF, resize and blur as tensor_crf."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from pnp_core.masks.config import CrfConfig
from pnp_core.masks.grids import blur_matrix, resize_matrix
from pnp_core.masks.refine import tensor_crf
from pnp_core.masks.refine.lattice import Lattice
from pnp_core.methods.pnp.channels import channels

if TYPE_CHECKING:
    from benchmarks.gpu import Report

PHOTOGRAPHS = Path(__file__).parent.parent / "pnp_core" / "_photographs"
LABELS = (2, 5, 9, 21)
GRID = 21


def size_of(small: bool) -> tuple[int, int]:
    """Height and width of the pictures."""
    return (37, 50) if small else (375, 500)


def batches_of(small: bool) -> tuple[int, ...]:
    """Pictures refined together."""
    return (1, 2) if small else (1, 8, 32)


def photographs(number: int, height: int, width: int) -> list[np.ndarray]:
    """So many pictures: the package's photographs, and then the same mirrored and upside down."""
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))
    found = []
    for n in range(number):
        with Image.open(files[n % len(files)]) as image:
            image = np.array(image.convert("RGB").resize((width, height)))
        turn = n // len(files)
        found.append(np.ascontiguousarray(image[:: -1 if turn & 2 else 1, :: -1 if turn & 1 else 1]))
    return found


def drawn_maps(classes: int, seed: int) -> np.ndarray:
    """Class maps on the patch grid, three in ten patches salient."""
    rng = np.random.default_rng(seed)
    shape = (classes, GRID, GRID)
    return np.where(rng.random(shape) > 0.7, rng.random(shape), 0).astype(np.float32)


def drawn_scores(labels: int, height: int, width: int, seed: int) -> np.ndarray:
    """Channels as the masks stage gives them to the CRF, the background first."""
    return channels(drawn_maps(labels - 1, seed), height, width, True, 0.05 * max(height, width))


def measure_crf(report: Report, small: bool) -> None:
    """Pictures per second from scores on the device to probabilities there."""
    height, width = size_of(small)
    images = photographs(max(batches_of(small)), height, width)
    for labels in LABELS:
        scores = [torch.from_numpy(drawn_scores(labels, height, width, n)).to(report.device) for n in range(6)]
        for number in batches_of(small):
            chosen = [scores[n % len(scores)] for n in range(number)]
            took, peak = report.measure(lambda s=chosen, n=number: refine(s, images[:n], report.device), 0.5, 5)
            report.add("crf", labels=labels, batch=number, per_second=number / took, peak_gb=peak)


def refine(scores: list[torch.Tensor], images: list[np.ndarray], device: torch.device) -> list[torch.Tensor]:
    """All of them at once."""
    return tensor_crf.refine_batch(scores, images, CrfConfig(), device, chunk=2**36)


def measure_agreement(report: Report, small: bool) -> None:
    """The device against the CPU; two runs of it; a batch against each picture alone."""
    height, width = size_of(small)
    images = photographs(6, height, width)
    for labels in LABELS:
        scores = [torch.from_numpy(drawn_scores(labels, height, width, n)) for n in range(6)]
        found, again = (refine(scores, images, report.device) for _ in range(2))
        alone = [refine([s], [p], report.device)[0] for s, p in zip(scores, images, strict=True)]
        expected = [refine([s], [p], torch.device("cpu"))[0] for s, p in zip(scores[:3], images, strict=False)]
        pairs = [(a.cpu(), b) for a, b in zip(found, expected, strict=False)]
        report.add(
            "crf agreement",
            labels=labels,
            differing=sum(int((a.argmax(0) != b.argmax(0)).sum()) for a, b in pairs),
            pixels=3 * height * width,
            largest_difference=max(float((a - b).abs().max()) for a, b in pairs),
            repeats=all(torch.equal(a, b) for a, b in zip(found, again, strict=True)),
            batch_is_alone=all(torch.equal(a, b) for a, b in zip(found, alone, strict=True)),
        )


def measure_crf_parts(report: Report, small: bool) -> None:
    """Milliseconds of the CRF's parts for a batch, and of another way to read from the vertices."""
    height, width = size_of(small)
    number, config = batches_of(small)[-1], CrfConfig()
    sizes = ((height, width),) * number
    for kind, images in (
        ("photographs", photographs(number, height, width)),
        ("constant", [np.full((height, width, 3), 128, np.uint8)] * number),
    ):
        alike = tensor_crf._appearance(sizes, images, config, report.device)
        near = tensor_crf._smoothness(sizes, config.gaussian_sxy, config.gaussian_compat, report.device)
        report.add("crf parts", kind=kind, vertices=len(alike.starts) - 1, near_vertices=len(near.starts) - 1)
        making = report.measure(lambda p=images: tensor_crf._appearance(sizes, p, config, report.device), 0.3, 3)[0]
        report.add("crf parts", kind=kind, batch=number, step="appearance lattice", ms=1000 * making)
        for labels in (2, 5, 21):
            values = torch.rand(number * height * width, labels, device=report.device)
            for step, work in _steps(alike, near, values).items():
                took, _ = report.measure(work, 0.1, 3)
                report.add("crf parts", kind=kind, batch=number, labels=labels, step=step, ms=1000 * took)


def _steps(alike: Lattice, near: Lattice, values: torch.Tensor) -> dict[str, Callable[[], object]]:
    mixed = torch.rand(len(alike.starts), values.shape[1], device=values.device)

    def slice_by_bags() -> torch.Tensor:
        return F.embedding_bag(alike.vertices, mixed, mode="sum", per_sample_weights=alike.taken)

    def slice_by_corners() -> torch.Tensor:
        found = torch.zeros_like(values)
        for corner in range(alike.vertices.shape[1]):
            found.addcmul_(mixed.index_select(0, alike.vertices[:, corner]), alike.taken[:, corner, None])
        return found

    return {
        "appearance filter": lambda: alike.filter(values),
        "smoothness filter": lambda: near.filter(values),
        "slice by bags": slice_by_bags,
        "slice by corners": slice_by_corners,
        "softmax": lambda: values.softmax(1),
    }


def measure_channels(report: Report, small: bool) -> None:
    """Resize, background, blur and min-max of a batch as tensors, beside the project's own on one CPU picture."""
    height, width = size_of(small)
    for labels in LABELS:
        for number in batches_of(small):
            maps = np.stack([drawn_maps(labels - 1, n) for n in range(number)])
            on_device = torch.from_numpy(maps).to(report.device)
            took, peak = report.measure(lambda m=on_device: channels_of(m, height, width), 0.3, 5)
            expected = drawn_scores(labels, height, width, 0)
            difference = float(np.abs(channels_of(on_device[:1], height, width)[0].cpu().numpy() - expected).max())
            report.add(
                "resize and blur", labels=labels, batch=number, per_second=number / took, peak_gb=peak,
                largest_difference=difference,
            )  # fmt: skip


def channels_of(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """`pnp_core.masks.label_map.channels` with a background, for a batch (B, C, gh, gw) of equal pictures."""
    sigma = 0.05 * max(height, width)
    rows, columns = (_on(maps, resize_matrix(side, GRID)) for side in (height, width))
    blur_rows, blur_columns = (_on(maps, blur_matrix(side, sigma)) for side in (height, width))
    smooth = (blur_rows @ rows) @ maps @ (blur_columns @ columns).T
    empty = (rows @ maps.sum(1, keepdim=True) @ columns.T == 0).to(maps.dtype)
    stacked = torch.cat([blur_rows @ empty @ blur_columns.T, smooth], 1)
    low, high = stacked.amin((2, 3), keepdim=True), stacked.amax((2, 3), keepdim=True)
    return torch.where(high > low, (stacked - low) / (high - low), 0)


def _on(like: torch.Tensor, matrix: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(matrix.copy()).to(like.device)
