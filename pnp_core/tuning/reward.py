"""The CLIP reward: how well regions show their classes, judged without any mask (ALGORITHM section 6).

For each picture and each of its labels k the class map becomes a region, and CLIP looks at the
picture cut to it. What it sees there, beside what it sees in an empty picture, is the score of (picture, k);
the reward is the mean over all of them.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from pnp_core.masks.grids import blur_matrix, min_max, resize_matrix
from pnp_core.registry import Registry
from pnp_core.tuning.region_scorers import RegionScorer

REWARD_VERSION = 1
"""Goes up when the same setting gets another reward."""
MEMO_BYTES = 256 * 2**20
"""Memory for what was said of regions seen before."""


def regions(
    maps: Float[np.ndarray, "R gh gw"], threshold: float, blur: float, size: int
) -> Bool[np.ndarray, "R size size"]:
    """Class maps to regions of CLIP's input: binarise, resize, blur, binarise again at the same threshold.

    A constant map gives an empty region.

    Args:
        maps: of finite numbers.
        threshold: on the min-max of each map, in [0, 1).
        blur: Gaussian sigma as a share of the side.
        size: side of CLIP's input in pixels.
    """
    salient = (min_max(maps.astype(np.float32)) > threshold).astype(np.float32)
    rows, columns = resize_matrix(size, maps.shape[1]), resize_matrix(size, maps.shape[2])
    if blur > 0:
        smooth = blur_matrix(size, blur * size)
        rows, columns = smooth @ rows, smooth @ columns
    return rows @ salient @ columns.T > threshold


@dataclass(frozen=True)
class RegionSimilarity:
    """What CLIP sees in R regions; similarities are cosines times CLIP's scale (authors: / 0.01).

    Attributes:
        similarity: of each region to each class of the vocabulary.
        blank: of an empty picture.
        label: column of each region's own class.
        labels: columns of all labels of each region's picture.
        area: share of the picture that each region covers, in [0, 1].
        elsewhere: as `similarity`, of the region put elsewhere in the picture in one way or more.
    """

    similarity: Float[np.ndarray, "R V"]
    blank: Float[np.ndarray, " V"]
    label: Int[np.ndarray, " R"]
    labels: tuple[tuple[int, ...], ...]
    area: Float[np.ndarray, " R"]
    elsewhere: tuple[Float[np.ndarray, "R V"], ...] = ()


def softmax(values: Float[np.ndarray, "*R V"]) -> Float[np.ndarray, "*R V"]:
    """Probabilities from scaled similarities, over the last axis."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def authors_reward(sight: RegionSimilarity) -> Float[np.ndarray, " R"]:
    """1 where the region speaks more for its class than an empty picture does, else 0.

    The softmax is over the picture's own labels, so pictures with one label always tie and never
    score. So do empty regions.
    """
    scores = np.zeros(len(sight.label))
    for i, (label, labels) in enumerate(zip(sight.label, sight.labels, strict=True)):
        own = list(labels)
        here, empty = softmax(sight.similarity[i, own]), softmax(sight.blank[own])
        scores[i] = here[own.index(label)] > empty[own.index(label)]
    # On some devices an empty region and an empty picture differ in the last bit.
    return np.where(sight.area > 0, scores, 0.0)


def contrast_reward(sight: RegionSimilarity) -> Float[np.ndarray, " R"]:
    """Gain in the probability of the class over an empty picture, less the share of the picture it takes.

    The softmax is over the whole vocabulary, so pictures with one label count as well, and the
    score is graded. Without the area nothing would speak against a region that is the whole picture.
    """
    rows = np.arange(len(sight.label))
    here = softmax(sight.similarity)[rows, sight.label]
    return np.where(sight.area > 0, here - softmax(sight.blank)[sight.label] - sight.area, 0.0)


def control_reward(sight: RegionSimilarity) -> Float[np.ndarray, " R"]:
    """Probability of the class in the region, less that in regions of the same shape and size elsewhere.

    A region that is too small does not show the class; one that is too large shows it elsewhere as
    well. The softmax is over the whole vocabulary. An empty region and the whole picture score 0.
    """
    rows = np.arange(len(sight.label))
    here, *elsewhere = (softmax(seen)[rows, sight.label] for seen in (sight.similarity, *sight.elsewhere))
    return here - np.mean(elsewhere, axis=0)


Displacement = Callable[[np.ndarray], np.ndarray]
"""Regions (R, s, s) to regions of the same size elsewhere."""


def rotate_180(found: Bool[np.ndarray, "R s s"]) -> Bool[np.ndarray, "R s s"]:
    """Regions turned by 180 degrees about the picture's centre."""
    return found[:, ::-1, ::-1]


def roll_half(found: Bool[np.ndarray, "R s s"]) -> Bool[np.ndarray, "R s s"]:
    """Regions moved by half the picture down and to the right, over its border to the other side."""
    half = found.shape[-1] // 2
    return np.roll(found, (half, half), (1, 2))


@dataclass(frozen=True)
class Reward:
    """A way to score what CLIP sees, and the regions elsewhere that it wants seen."""

    score: Callable[[RegionSimilarity], np.ndarray]
    elsewhere: tuple[Displacement, ...] = ()


AUTHORS = Reward(authors_reward)
CONTRAST = Reward(contrast_reward)
# Two ways: turned, a region in the middle meets itself; moved by half, one that fills a half does.
CONTROL = Reward(control_reward, (rotate_180, roll_half))

REWARDS: Registry[Reward] = Registry(
    "reward",
    "pnp_ovss.rewards",
    {name: f"pnp_core.tuning.reward:{name.upper()}" for name in ("authors", "contrast", "control")},
)


@dataclass
class Judge:
    """Someone who looks at regions, and what was seen before."""

    onlooker: RegionScorer
    batch_size: int
    seen: int = 0
    """Regions that had to be looked at; the others were known."""
    _memo: OrderedDict[bytes, np.ndarray] = field(default_factory=OrderedDict)
    _blank: np.ndarray | None = None

    def similarity(
        self,
        images: UInt8[np.ndarray, "N s s 3"],
        names: Sequence[str],
        image_of: Int[np.ndarray, " R"],
        found: Bool[np.ndarray, "R s s"],
    ) -> Float[np.ndarray, "R V"]:
        """Scaled similarity of each region to each class; equal regions of a picture are looked at once.

        Args:
            names: of the pictures, unique in this judge's lifetime.
            image_of: picture of each region.
        """
        keys = [_region_key(names[int(p)], region) for p, region in zip(image_of, found, strict=True)]
        unknown = {key: i for i, key in enumerate(keys) if key not in self._memo}
        order = list(unknown.values())
        rows = self._look(images, image_of[order], found[order])
        fresh = {key: row.copy() for key, row in zip(unknown, rows, strict=True)}
        result = np.stack([fresh[key] if key in fresh else self._memo[key] for key in keys])
        self._remember(keys, fresh)
        return result

    def blank(self) -> Float[np.ndarray, " V"]:
        """Scaled similarity of an empty picture to each class."""
        size = self.onlooker.size
        blank = self._blank
        if blank is None:
            nothing = np.zeros((1, size, size), bool)
            blank = self._look(np.zeros((1, size, size, 3), np.uint8), np.zeros(1, int), nothing)[0]
        self._blank = blank
        return blank

    def _look(self, images: np.ndarray, image_of: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Scaled similarities of regions, in batches filled up to one size.

        In batches of another size CLIP rounds otherwise, and which regions are new depends on what was
        asked before: a search that was killed would get other rewards, by a hair.
        """
        self.seen += len(found)
        rows, size = [np.zeros((0, self.onlooker.classes), np.float32)], self.batch_size
        for start in range(0, len(found), size):
            part = slice(start, start + size)
            empty = [(0, size - len(found[part]))] + [(0, 0)] * 2
            filled = np.pad(images[image_of[part]], [*empty, (0, 0)]), np.pad(found[part], empty)
            similarity = self.onlooker.look(*map(torch.from_numpy, filled)).float().cpu().numpy()
            rows.append(similarity[: len(found[part])])
        return np.concatenate(rows)

    def _remember(self, keys: Sequence[bytes], fresh: dict[bytes, np.ndarray]) -> None:
        for key in keys:
            if key in fresh:
                self._memo[key] = fresh[key]
            self._memo.move_to_end(key)
        while len(self._memo) * (4 * self.onlooker.classes + 200) > MEMO_BYTES:
            self._memo.popitem(last=False)


def _region_key(name: str, region: np.ndarray) -> bytes:
    return hashlib.blake2b(np.packbits(region).tobytes(), digest_size=16, key=_short(name)).digest()


def _short(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()
