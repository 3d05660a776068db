"""Gaussian filtering of many pixels at once on the permutohedral lattice (Adams, Baek, Davis 2010), as tensors.

Pixels lie at points of d features. Each gives its values to the d + 1 vertices of the simplex that it lies in (splat),
the vertices mix with their neighbours along d + 1 axes (blur), and each pixel reads its own vertices again (slice).
Geometry and order of roundings are those of Kraehenbuehl and Koltun's code, which `pydensecrf` is made of.

No sum depends on the order in which threads finish, so a device repeats its results byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn import functional as F

from pnp_core.errors import CrfInputError

EXACT = 2**22
"""Largest coordinate whose roundings float32 still tells apart."""
PIECE = 64
"""Longer sums are taken piece by piece, so that no thread of a GPU adds up all pixels of an even sky alone."""
_TINY = 1e-20  # pydensecrf's, under the root of the norm


@dataclass(frozen=True)
class Lattice:
    """N pixels on M vertices. Row M of the vertices is empty: the neighbour of those that have none.

    Attributes:
        pixels: of the E = N (d + 1) pairs of vertex and pixel in order of vertices, the pixel.
        given: what it gives to the vertex.
        pieces: where each piece of at most `PIECE` pairs of the same vertex begins.
        starts: where each vertex's pieces begin.
        vertices: of each pixel.
        taken: what it takes of each.
        neighbours: of each vertex, before and after it on each axis.
    """

    pixels: Int[torch.Tensor, " E"]
    given: Float[torch.Tensor, " E"]
    pieces: Int[torch.Tensor, " K"]
    starts: Int[torch.Tensor, " M1"]
    vertices: Int[torch.Tensor, "N D1"]
    taken: Float[torch.Tensor, "N D1"]
    neighbours: Int[torch.Tensor, "D1 2 M1"]

    def filter(self, values: Float[torch.Tensor, "N C"]) -> Float[torch.Tensor, "N C"]:
        """Splat, blur, slice."""
        parts = F.embedding_bag(self.pixels, values, self.pieces, mode="sum", per_sample_weights=self.given)
        every = torch.arange(len(self.pieces), device=values.device, dtype=self.starts.dtype)
        mixed = F.embedding_bag(every, parts, self.starts, mode="sum")
        for before, after in self.neighbours:
            beside = mixed.index_select(0, before).add_(mixed.index_select(0, after))
            mixed = mixed.add_(beside, alpha=0.5)
        return F.embedding_bag(self.vertices, mixed, mode="sum", per_sample_weights=self.taken)

    def normalised(self, weight: float) -> Lattice:
        """The same as a kernel with symmetric normalisation, times a weight: weight n K n, n = 1 / sqrt(K 1)."""
        norm = 1 / (self.filter(torch.ones_like(self.taken[:, :1]))[:, 0] + _TINY).sqrt()
        return replace(self, given=self.given * norm[self.pixels], taken=self.taken * (weight * norm[:, None]))


def build_lattice(
    features: Float[torch.Tensor, "d N"], largest: Sequence[float], image: Int[torch.Tensor, " N"], images: int
) -> Lattice:
    """The lattice of several pictures' pixels; those of different pictures share no vertex.

    Args:
        features: >= 0, in standard deviations of the Gaussian.
        largest: of each of the d features.
        image: which of the pictures a pixel is of, from 0.

    Raises:
        CrfInputError: the largest features are too many standard deviations.
    """
    packing = _Packing.of(largest, images)
    keys, weights = _simplices(features, packing)
    keys += image.to(keys.dtype) * packing.room
    pixels = features.shape[1]
    ordered, order = torch.sort(keys.T.flatten(), stable=True)  # by pixel and vertex, as they are added up
    first = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=first[1:])
    bounds = first.nonzero()[:, 0]
    vertices = torch.empty_like(order).scatter_(0, order, first.cumsum(0) - 1)
    pieces, starts = _pieces(F.pad(bounds, (0, 2), value=len(ordered)).diff())
    corners = len(weights)
    # pydensecrf's scale of the whole: the blur's weights do not sum to one.
    alpha = 1 / (1 + 2.0 ** (1 - corners))
    weights = weights.T.contiguous()
    return Lattice(
        pixels=order.div(corners, rounding_mode="floor").int(),
        given=weights.flatten()[order],
        pieces=pieces,
        starts=starts,
        vertices=vertices.view(pixels, corners).int(),
        taken=weights * alpha,
        neighbours=_neighbours(ordered[bounds], packing),
    )


@dataclass(frozen=True)
class _Packing:
    """One whole number for each vertex: the sum of its coordinates times strides.

    The d + 1 coordinates of a vertex sum to 0 (so the last has stride 0) and leave the same remainder r when divided by
    d + 1: they are (d + 1) q + r, and the sum is (d + 1) Q + r S, S the sum of the strides. With S = 1 modulo d + 1 it
    tells r, and with strides for the range of each q all of them. As a sum it has each neighbour at a fixed distance.
    """

    strides: tuple[int, ...]
    room: int
    dtype: torch.dtype

    @classmethod
    def of(cls, largest: Sequence[float], images: int) -> _Packing:
        """Strides for features from 0 to the largest ones.

        Raises:
            CrfInputError: they do not fit 62 bits, or float32 no longer tells whole numbers of their size apart.
        """
        corners = len(largest) + 1
        scaled = [float(most) * scale for most, scale in zip(largest, _scales(corners), strict=True)]
        strides, spans = [], []
        for i in range(len(scaled)):
            strides.append(math.prod(spans))
            reach = sum(scaled[i:]) + (i * scaled[i - 1] if i else 0)
            # Vertices lie up to 2.5 multiples of d + 1 from their pixels, neighbours one further.
            spans.append(math.ceil(reach / corners) + 9)
        strides[-1] += (1 - sum(strides)) % corners
        room = 2 * corners * strides[-1] * spans[-1]
        if room * (images + 1) >= 2**62 or sum(scaled) > EXACT:
            most = f"{max(largest):.0f} standard deviations"
            raise CrfInputError(f"features up to {most} are too many for the CRF's lattice: take larger bandwidths")
        return cls((*strides, 0), room, torch.int32 if room * (images + 1) < 2**31 else torch.int64)


def _scales(corners: int) -> list[float]:
    """The diagonal part of the elevation (page 5 of the paper), times the standard deviation of the blur."""
    deviation = float(np.float32(math.sqrt(2 / 3) * corners))
    return [float(np.float32(1 / math.sqrt((i + 2) * (i + 1)) * deviation)) for i in range(corners - 1)]


def _elevate(features: Float[torch.Tensor, "d N"]) -> Float[torch.Tensor, "D1 N"]:
    """Onto the plane of points whose d + 1 coordinates sum to 0."""
    corners = len(features) + 1
    rows, total = [], torch.zeros_like(features[0])
    for j, scale in reversed(list(enumerate(_scales(corners), start=1))):
        scaled = features[j - 1] * scale
        rows.append(total - j * scaled)
        total = total + scaled
    return torch.stack([total, *reversed(rows)])


def _ranks(away: Float[torch.Tensor, "D1 N"]) -> Int[torch.Tensor, "D1 N"]:
    """Place of each coordinate among those of its point, largest first; the earlier one first of equals."""
    ranks = torch.zeros_like(away, dtype=torch.int32)
    for i in range(len(away)):
        for j in range(i + 1, len(away)):
            less = away[i] < away[j]
            ranks[i] += less
            ranks[j] += ~less
    return ranks


def _simplices(
    features: Float[torch.Tensor, "d N"], packing: _Packing
) -> tuple[Int[torch.Tensor, "D1 N"], Float[torch.Tensor, "D1 N"]]:
    """The vertices of the simplex around each point, those of remainder 0 first, and their barycentric weights."""
    corners = len(features) + 1
    share = float(np.float32(1 / corners))
    elevated = _elevate(features)
    nearest = (elevated * share).round_()
    ranks = _ranks(elevated - nearest * corners)
    # A point of remainder 0 that is off the plane is brought back along the coordinates that were rounded furthest.
    ranks += nearest.sum(0).int()
    back = (ranks < 0).int() - (ranks >= corners).int()
    nearest += back
    ranks = (ranks + back * corners).long()
    rest = torch.empty_like(elevated).scatter_(0, ranks, (elevated - nearest * corners) * share)
    weights = (rest - torch.cat([rest[1:], rest[:1] - 1])).flip(0)
    strides = torch.tensor(packing.strides, device=features.device, dtype=packing.dtype)[:, None]
    origin = (nearest.to(packing.dtype) * strides).sum(0, dtype=packing.dtype) * corners
    # The vertex of remainder r adds r to all coordinates, and takes d + 1 from the r that rank last.
    last = torch.empty_like(ranks, dtype=packing.dtype).scatter_(0, ranks, strides.expand(ranks.shape)).flip(0)
    taken = F.pad(last[:-1].cumsum(0, dtype=packing.dtype), (0, 0, 1, 0))
    step = torch.arange(corners, device=features.device, dtype=packing.dtype)[:, None] * sum(packing.strides)
    return origin + step - corners * taken, weights


def _pieces(lengths: Int[torch.Tensor, " M1"]) -> tuple[Int[torch.Tensor, " K"], Int[torch.Tensor, " M1"]]:
    """Cut consecutive runs of these lengths into pieces.

    Returns:
        where pieces begin, and the number of the first piece of each run.
    """
    numbers = (lengths + (PIECE - 1)).div(PIECE, rounding_mode="floor")
    starts = numbers.cumsum(0) - numbers
    begin = lengths.cumsum(0) - lengths
    run = torch.repeat_interleave(numbers)
    within = torch.arange(len(run), device=lengths.device) - starts[run]
    return (begin[run] + PIECE * within).int(), starts.int()


def _neighbours(keys: Int[torch.Tensor, " M"], packing: _Packing) -> Int[torch.Tensor, "D1 2 M1"]:
    """The vertices before and after each of the sorted ones on each axis; row M where there is none."""
    number = len(keys)
    own = torch.arange(number + 1, device=keys.device)
    pairs = []
    for stride in packing.strides:
        wanted = keys + (sum(packing.strides) - len(packing.strides) * stride)
        place = torch.searchsorted(keys, wanted).clamp_(max=number - 1)
        after = F.pad(torch.where(keys[place] == wanted, place, number), (0, 1), value=number)
        # Who has one after it, is before that one; the many that have none write to the last row.
        before = torch.full_like(own, number).scatter_(0, after, own)
        before[number] = number
        pairs.append(torch.stack([before, after]))
    return torch.stack(pairs).int()
