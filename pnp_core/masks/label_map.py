"""Scores of classes to label maps, whatever the method: refinement, argmax."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, UInt, UInt8
from PIL import Image
from PIL.Image import Resampling

from pnp_core.data import ClassMaps, label_type
from pnp_core.errors import MethodError
from pnp_core.masks.refine import Refiner, Smoother
from pnp_core.masks.refine.off import softmax
from pnp_core.masks.resize import there_and_back

FEW_CLASSES = 3
"""Scene data gets a background channel below this many candidate classes (authors' rule)."""


@dataclass(frozen=True)
class Scores:
    """What a method makes of an image's maps, ready for refinement and argmax.

    Attributes:
        channels: what refiners begin with the softmax of: scores in [0, 1], or logarithms of probabilities. Where there
            is a `finish` what that makes of them is, and they are of any number and range.
        labels: class id of each (finished) channel, 0 for background; a class may have several, one that was asked
            about none.
        strength: per candidate class how strongly it was seen (PnP-OVSS: its mean salience).
        finish: what is still to be done with the channels where smoothing along the image comes before it (NACLIP).
        seen_at: size (h, w) that the method saw the image at, which is what smoothing goes along; None for its own.
    """

    channels: Float[np.ndarray, "N H W"]
    labels: tuple[int, ...]
    strength: Float[np.ndarray, " C"]
    finish: Callable[[np.ndarray], np.ndarray] | None = None
    seen_at: tuple[int, int] | None = None

    def fit(self, size: tuple[int, int], classes: int) -> bool:
        """Whether they are of a size (H, W) and so many classes that were asked about."""
        number = self.channels.shape[0] if self.finish else len(self.labels)
        return self.channels.shape == (number, *size) and len(self.labels) > 0 and len(self.strength) == classes

    def finished(self, channels: np.ndarray) -> np.ndarray:
        """What refiners begin with, of the channels as they are now.

        Raises:
            MethodError: they are not one for each label.
        """
        made = self.finish(channels) if self.finish else channels
        if made.shape != (len(self.labels), *channels.shape[1:]):
            raise MethodError("the method's finished scores do not fit the image and their labels")
        return made


Map = Callable[..., Iterable[Any]]
"""`map`, or one that works on several threads."""
Decide = Callable[[ClassMaps, tuple[int, int]], Scores]
"""(maps of at least one class, size (H, W) in pixels) -> scores."""


@dataclass(frozen=True)
class SoftMap:
    """What an argmax makes a label map of.

    Attributes:
        probabilities: of each channel after refinement, in [0, 1], at the size that the image was refined at.
        labels: class id of each channel, 0 for background; a class may have several.
    """

    probabilities: Float[np.ndarray, "N h w"]
    labels: tuple[int, ...]

    def of(self, labels: Sequence[int], size: tuple[int, int]) -> Float[np.ndarray, "L H W"]:
        """One map for each of some labels, all that there are among them, at a size (H, W): of several channels of a
        label the best one, 0 where it has none. The largest is that of the label map, and its value the confidence.

        >>> soft = SoftMap(np.array([[[0.5]], [[0.125]], [[0.375]]], np.float32), (0, 2, 2))
        >>> soft.of((0, 1, 2), (1, 2))[:, 0].tolist()
        [[0.5, 0.5], [0.0, 0.0], [0.375, 0.375]]
        """
        found = np.zeros((len(labels), *size), dtype=np.float32)
        row = {label: number for number, label in enumerate(labels)}
        at = _at_size(self.probabilities.shape[1:], size)
        for label, values in zip(self.labels, self.probabilities, strict=True):
            one = found[row[label]]
            np.maximum(one, values if at is None else values[at], out=one)
        return found


@dataclass(frozen=True)
class LabelMap:
    """A finished mask.

    Attributes:
        labels: class ids, 0 for background; of 16 bits where one of them is over 254.
        confidence: probability of the winning channel after refinement.
        salience: per candidate class how strongly it was seen, see `Scores`.
        soft: what the labels are the argmax of, where that was asked for: 4 bytes per channel and pixel.
    """

    labels: UInt[np.ndarray, "H W"]
    confidence: Float[np.ndarray, "H W"]
    salience: Float[np.ndarray, " C"]
    soft: SoftMap | None = None


def wants_background(rule: str, classes: int) -> bool:
    """Whether a picture with so many candidate classes gets a background channel.

    Args:
        rule: always, few (fewer than 3 candidates) or never; `auto` must be resolved before.

    >>> wants_background("few", 2), wants_background("few", 3)
    (True, False)
    """
    return {"always": True, "few": classes < FEW_CLASSES, "never": False}[rule]


def _shrunk(image: np.ndarray, side: int) -> np.ndarray:
    longest = max(image.shape[:2])
    if longest <= side:
        return image
    height, width = (max(1, round(length * side / longest)) for length in image.shape[:2])
    return np.array(Image.fromarray(image).resize((width, height), Resampling.BOX))


def _nearest(size: int, source: int) -> np.ndarray:
    """For each of `size` pixels the one of `source` that covers its centre."""
    return ((np.arange(size) + 0.5) * source / size).astype(int)


def _at_size(source: tuple[int, ...], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Where each pixel of a size (H, W) is in an array of another one; None where they are the same."""
    if source == size:
        return None
    return _nearest(size[0], source[0])[:, None], _nearest(size[1], source[1])


def make_label_maps(
    maps: Sequence[ClassMaps],
    images: Sequence[np.ndarray],
    decide: Decide,
    refine: Refiner,
    max_side: int,
    map_: Map = map,
    soft: bool = False,
) -> list[LabelMap]:
    """Some images' maps to their label maps, each at the image's own size.

    Without candidate classes it is all background. Images with a side over `max_side` are refined at a smaller size,
    so that memory has a bound.

    Args:
        map_: does what is done image by image, perhaps on several threads.
        soft: also keep the scores of all classes.

    Raises:
        MethodError: what is decided on fits neither size nor classes.
    """
    asked = [n for n, one in enumerate(maps) if one.classes]
    small = list(map_(lambda n: _shrunk(images[n], max_side), asked))
    scores = list(map_(lambda one, image: decided(decide, one, image.shape[:2]), [maps[n] for n in asked], small))
    refined = _refined(refine, scores, small, map_)
    finish = partial(_label_map, soft)
    made = dict(zip(asked, map_(finish, [maps[n] for n in asked], scores, refined), strict=True))
    return [made[n] if n in made else _all_background(one, soft) for n, one in enumerate(maps)]


def _refined(refine: Refiner, scores: Sequence[Scores], images: Sequence[np.ndarray], map_: Map) -> list[np.ndarray]:
    """Probabilities of each image; smoothing comes before what is made of the scores, whatever else after."""
    channels = [one.channels for one in scores]
    if not isinstance(refine, Smoother):
        return refine(list(map_(Scores.finished, scores, channels)), images)
    guides = list(map_(_as_seen, images, scores))
    smooth = refine.smooth(channels, guides)
    return list(map_(lambda one, smoothed: softmax(one.finished(smoothed)), scores, smooth))


def _as_seen(image: np.ndarray, scores: Scores) -> np.ndarray:
    """An image at its own size as sharp as the method saw it."""
    return image if scores.seen_at is None else there_and_back(image, scores.seen_at)


def decided(decide: Decide, maps: ClassMaps, size: tuple[int, int]) -> Scores:
    """Scores of one image's maps, of at least one class, at a size (H, W) in pixels; they may be no numbers.

    Raises:
        MethodError: they fit neither size nor classes.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # whoever asks looks at their numbers
        scores = decide(maps, size)
    if not scores.fit(size, len(maps.classes)):
        raise MethodError("the method's scores do not fit the image and the classes asked")
    return scores


def _label_map(soft: bool, maps: ClassMaps, scores: Scores, probabilities: np.ndarray) -> LabelMap:
    ids = np.array(scores.labels, dtype=label_type(max(scores.labels)))
    winner, confidence = ids[probabilities.argmax(axis=0)], probabilities.max(axis=0)
    at = _at_size(probabilities.shape[1:], (maps.height, maps.width))
    if at is not None:
        winner, confidence = winner[at], confidence[at]
    return LabelMap(winner, confidence, scores.strength, SoftMap(probabilities, scores.labels) if soft else None)


def _all_background(maps: ClassMaps, soft: bool) -> LabelMap:
    size = (maps.height, maps.width)
    certain = SoftMap(np.ones((1, 1, 1), np.float32), (0,)) if soft else None
    return LabelMap(np.zeros(size, np.uint8), np.ones(size, np.float32), np.zeros(0, np.float32), certain)


def soft_maps(
    maps: ClassMaps, image: np.ndarray, decide: Decide, refine: Refiner, max_side: int
) -> tuple[tuple[int, ...], UInt8[np.ndarray, "C H W"]]:
    """What the label map of an image is the greatest of: probabilities of its classes, in 8 bits.

    Args:
        max_side: see `make_label_maps`.

    Returns:
        Class ids in their order, 0 for background; for each its probability at every pixel as 0..255. A class with
        several channels has the greatest of them.

    Raises:
        MethodError: what is decided on fits neither size nor classes.
    """
    (made,) = make_label_maps([maps], [image], decide, refine, max_side, soft=True)
    assert made.soft
    labels = tuple(sorted(set(made.soft.labels)))
    found = made.soft.of(labels, (maps.height, maps.width))
    return labels, (found * 255 + 0.5).astype(np.uint8)
