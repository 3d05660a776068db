"""Fully connected CRF with Gaussian edges (Kraehenbuehl and Koltun 2011) as tensors, for many pictures on a GPU.

The same mean field as `dense`: symmetric normalisation, Potts compatibility, features and roundings of pydensecrf. Held
against it in `tests/pnp_core/masks/refine`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float

from pnp_core.devices import resolve_device
from pnp_core.errors import CrfInputError
from pnp_core.masks.config import CrfConfig
from pnp_core.masks.refine import Refiner
from pnp_core.masks.refine.lattice import Lattice, build_lattice

Scores = np.ndarray | torch.Tensor
Size = tuple[int, int]

CHUNK = 2**31
"""Bytes that the pictures refined together may take at most where the device does not tell how much it has; a single
larger one takes what it needs."""
_LATTICE, _LABEL = 2600, 96  # bytes for each pixel of noise: of both lattices while they are made, of each label
_FEW = 16  # on a CPU torch's own softmax of 2 to 9 labels takes 4 to 5 times as long as its steps one by one


def open_refiner(config: CrfConfig, device: str, threads: int) -> Refiner:
    """Mean-field inference from unaries -log softmax(scores) on the original RGB, see `refine_batch`."""
    place = resolve_device(device)
    return lambda scores, images: [one.cpu().numpy() for one in refine_batch(scores, images, config, place)]


def refine_batch(
    scores: Sequence[Scores],
    images: Sequence[np.ndarray],
    config: CrfConfig,
    device: torch.device,
    chunk: int | None = None,
) -> list[torch.Tensor]:
    """Refine several pictures, of any sizes and numbers of labels, as few large problems.

    A picture's result does not depend on those beside it.

    Args:
        scores: of each picture (C, H, W), finite.
        images: (H, W, 3) uint8 RGB.
        chunk: bytes that pictures refined together may take; when None half of what is free on a GPU, on a CPU one
            picture's.

    Returns:
        Of each picture probabilities (C, H, W), float32 on the device.

    Raises:
        CrfInputError: sizes do not agree, there is no channel or no pixel, scores are NaN or infinite.
    """
    if len(scores) != len(images):
        raise CrfInputError(f"the CRF got scores of {len(scores)} pictures and {len(images)} pictures")
    for number, (score, image) in enumerate(zip(scores, images, strict=True)):
        _check_shapes(tuple(score.shape), image, number)
    limit = _room(device) if chunk is None else chunk
    found: dict[int, torch.Tensor] = {}
    for numbers in _chunks([tuple(score.shape) for score in scores], limit):
        chosen = [torch.as_tensor(scores[n], dtype=torch.float32).to(device) for n in numbers]
        refined = _refine_chunk(chosen, [images[n] for n in numbers], config, device)
        found.update(zip(numbers, refined, strict=True))
    return [found[n] for n in range(len(scores))]


def _room(device: torch.device) -> int:
    """Bytes that pictures refined together may take."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return 0 if device.type == "cpu" else CHUNK


def _check_shapes(shape: tuple[int, ...], image: np.ndarray, number: int) -> None:
    place = f"scores {shape} of picture {number} of the CRF"
    if len(shape) != 3 or 0 in shape:
        raise CrfInputError(f"{place} must have channels, rows and columns, at least one of each")
    if image.shape != (*shape[1:], 3) or image.dtype != np.uint8:
        raise CrfInputError(
            f"{place} need {shape[1]} x {shape[2]} pixels of RGB bytes, not {image.shape} {image.dtype}"
        )


def _chunks(shapes: Sequence[tuple[int, ...]], limit: int) -> Iterator[list[int]]:
    """Numbers of the pictures to refine together: of as many labels each, and within the limit."""
    order = sorted(range(len(shapes)), key=lambda n: shapes[n][0])
    for labels, numbers in groupby(order, key=lambda n: shapes[n][0]):
        chunk: list[int] = []
        size = 0
        for n in numbers:
            own = shapes[n][1] * shapes[n][2] * (_LATTICE + _LABEL * labels)
            if chunk and size + own > limit:
                yield chunk
                chunk, size = [], 0
            chunk.append(n)
            size += own
        yield chunk


def _refine_chunk(
    scores: Sequence[torch.Tensor], images: Sequence[np.ndarray], config: CrfConfig, device: torch.device
) -> list[torch.Tensor]:
    stacked = torch.cat([score.flatten(1) for score in scores], 1).T.contiguous()
    if not stacked.isfinite().all():
        raise CrfInputError("scores for the CRF are NaN or infinite")
    sizes = tuple((int(score.shape[1]), int(score.shape[2])) for score in scores)
    refined = torch.ones_like(stacked) if stacked.shape[1] == 1 else _mean_field(stacked, sizes, images, config, device)
    parts = refined.split([height * width for height, width in sizes])
    return [part.T.contiguous().view(-1, *size) for part, size in zip(parts, sizes, strict=True)]


@torch.no_grad()
def _mean_field(
    scores: Float[torch.Tensor, "N C"],
    sizes: tuple[Size, ...],
    images: Sequence[np.ndarray],
    config: CrfConfig,
    device: torch.device,
) -> Float[torch.Tensor, "N C"]:
    near = _smoothness(sizes, config.gaussian_sxy, config.gaussian_compat, device)
    alike = _appearance(sizes, images, config, device)
    unary = scores.log_softmax(1)
    found = _softmax(unary)
    for _ in range(config.iterations):
        found = _softmax((unary + near.filter(found)).add_(alike.filter(found)))
    return found


def _softmax(scores: Float[torch.Tensor, "N C"]) -> Float[torch.Tensor, "N C"]:
    if scores.device.type != "cpu" or scores.shape[1] > _FEW:
        return scores.softmax(1)
    raised = (scores - scores.amax(1, keepdim=True)).exp_()
    return raised.div_(raised.sum(1, keepdim=True))


@lru_cache(maxsize=2)  # they hold 48 bytes for each pixel
def _smoothness(sizes: tuple[Size, ...], sxy: float, compat: float, device: torch.device) -> Lattice:
    """The kernel of positions, which is the same for all pictures of a size."""
    features, largest, image = _positions(sizes, sxy, device)
    return build_lattice(features, largest, image, len(sizes)).normalised(compat)


def _appearance(
    sizes: tuple[Size, ...], images: Sequence[np.ndarray], config: CrfConfig, device: torch.device
) -> Lattice:
    """The kernel of positions and colours."""
    features, largest, image = _positions(sizes, config.bilateral_sxy, device)
    shades = _spread(256, config.bilateral_srgb)
    flat = np.concatenate([np.asarray(one).reshape(-1, 3) for one in images]).T
    colours = torch.from_numpy(shades).to(device)[torch.from_numpy(np.ascontiguousarray(flat)).to(device).int()]
    return build_lattice(
        torch.cat([features, colours]), [*largest, *[float(shades[-1])] * 3], image, len(sizes)
    ).normalised(config.bilateral_compat)


def _spread(number: int, deviation: float) -> np.ndarray:
    """0, 1 ... in standard deviations; not on a GPU, where torch would multiply by a rounded inverse."""
    return np.arange(number, dtype=np.float32) / np.float32(deviation)


def _positions(
    sizes: tuple[Size, ...], sxy: float, device: torch.device
) -> tuple[torch.Tensor, list[float], torch.Tensor]:
    """Of all pixels the column and row (2, N) in standard deviations, the largest of each, and whose they are (N,)."""
    height, width = (max(sides) for sides in zip(*sizes, strict=True))
    columns, rows = (torch.from_numpy(_spread(side, sxy)).to(device) for side in (width, height))
    parts = [torch.stack([columns[:w].repeat(h), rows[:h].repeat_interleave(w)]) for h, w in sizes]
    image = torch.repeat_interleave(
        torch.arange(len(sizes), device=device), torch.tensor([h * w for h, w in sizes], device=device)
    )
    return torch.cat(parts, 1), [float(columns[-1]), float(rows[-1])], image
