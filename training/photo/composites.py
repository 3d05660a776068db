"""Training pictures made of photographs: crops, halves, quarters and photographs laid on others, with several names.

Each comes with features of the frozen encoder, kept on disk, and with the teacher's mask of every thing on it.

    uv run python -m training.photo.composites --photos FOLDER --weights FILE.pth --cache CACHE
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling

from pnp_core.methods.pnp.backbones.base import PIXEL_MEAN
from training.photo.arguments import parser
from training.photo.encoder import pixels_of, read_classifier
from training.photo.photos import Photo, read_photos
from training.photo.teacher import GRID, SIDE, basis_of, features_of

PATCH = SIDE // GRID
KINDS = {"whole": 0.3, "halves": 0.2, "quarters": 0.25, "laid on": 0.25}
IMAGENET_SHARE = 0.7
BATCH = 8
HIDDEN_SHARE = 0.3
"""So many pictures have patches hidden, as DropOut will hide them."""


@dataclass
class Composite:
    """A picture in the making.

    Attributes:
        pixels: (SIDE, SIDE, 3) in 0..255.
        things: ImageNet class or COCO name, and its mask (SIDE, SIDE) in 0..255; what is laid over it is cut out.
        sources: numbers of the photographs.
    """

    pixels: np.ndarray = field(default_factory=lambda: np.zeros((SIDE, SIDE, 3), np.float32))
    things: list[tuple[int | str, np.ndarray]] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)


class Composer:
    """Makes pictures by seed."""

    def __init__(self, photos: list[Photo], masks: dict[int, np.ndarray]) -> None:
        self._photos, self._masks = photos, masks
        self._imagenet = sum(photo.imagenet is not None for photo in photos)

    def compose(self, seed: int) -> Composite:
        rng = np.random.default_rng(seed)
        kind = rng.choice(list(KINDS), p=list(KINDS.values()))
        made = Composite()
        x, y = (int(SIDE * rng.uniform(0.35, 0.65)) for _ in "xy")
        across, down = ((0, x), (x, SIDE)), ((0, y), (y, SIDE))
        if kind == "halves":
            across, down = (across, ((0, SIDE),)) if rng.random() < 0.5 else (((0, SIDE),), down)
        elif kind != "quarters":
            across = down = ((0, SIDE),)
        for top, bottom in down:
            for left, right in across:
                self._put(made, rng, left, top, right - left, bottom - top)
        for _ in range(int(rng.integers(1, 3)) if kind == "laid on" else 0):
            width, height = (int(SIDE * rng.uniform(0.3, 0.6)) for _ in "xy")
            self._put(made, rng, int(rng.integers(SIDE - width)), int(rng.integers(SIDE - height)), width, height)
        return made

    def _put(self, made: Composite, rng: np.random.Generator, x: int, y: int, width: int, height: int) -> None:
        imagenet = rng.random() < IMAGENET_SHARE
        number = int(rng.integers(self._imagenet) if imagenet else rng.integers(self._imagenet, len(self._photos)))
        pixels, masks = self._crop(number, rng, width, height)
        place = np.s_[y : y + height, x : x + width]
        for _, mask in made.things:
            mask[place] = 0
        made.pixels[place] = pixels
        for thing, mask in zip(self._photos[number].things, masks, strict=True):
            whole = np.zeros((SIDE, SIDE), np.uint8)
            whole[place] = mask
            made.things.append((thing, whole))
        made.sources.append(number)

    def _crop(self, number: int, rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """A part of a photograph at a size: pixels, and masks in 0..255; mirrored, lightened, grey at random."""
        scale, aspect = rng.uniform(0.6, 1.0), rng.uniform(0.75, 1.33)
        across, down = min(1, scale * aspect**0.5), min(1, scale / aspect**0.5)
        left, top = rng.uniform(0, 1 - across), rng.uniform(0, 1 - down)
        part = np.array((left, top, left + across, top + down))

        def cut(image: Image.Image, how: Resampling) -> np.ndarray:
            box: Any = tuple(part * np.tile(image.size, 2))
            return np.asarray(image.resize((width, height), how, box=box))

        photo = Image.open(self._photos[number].file).convert("RGB")
        pixels = cut(photo, Resampling.BICUBIC).astype(np.float32)
        own = self._masks.get(number, np.zeros((0, SIDE, SIDE), np.uint8))
        masks = [cut(Image.fromarray(mask * 255), Resampling.BILINEAR) for mask in own]
        stacked = np.stack(masks) if masks else np.zeros((0, height, width), np.uint8)
        if rng.random() < 0.5:
            pixels, stacked = pixels[:, ::-1], stacked[:, :, ::-1]
        if rng.random() < 0.5:
            pixels = (pixels - 128) * rng.uniform(0.7, 1.3) + 128 + rng.uniform(-25, 25)
        if rng.random() < 0.1:
            pixels = np.repeat(pixels.mean(2, keepdims=True), 3, 2)
        return np.clip(pixels, 0, 255), stacked


def hidden_patches(seed: int) -> np.ndarray:
    """Patches (GRID, GRID) that are hidden in a picture: none in most."""
    rng = np.random.default_rng([seed, 1])
    if rng.random() > HIDDEN_SHARE:
        return np.zeros((GRID, GRID), bool)
    return rng.random((GRID, GRID)) < rng.uniform(0.1, 0.6)


@dataclass(frozen=True)
class Example:
    """What training sees of a picture besides its features.

    Attributes:
        hidden: patches (GRID, GRID) that were hidden.
        things: ImageNet class or COCO name, and the share of each patch that it covers, (GRID, GRID).
        sources: numbers of its photographs.
    """

    hidden: np.ndarray
    things: list[tuple[int | str, np.ndarray]]
    sources: tuple[int, ...]


def example_of(made: Composite, hidden: np.ndarray) -> Example:
    """Masks to shares of patches."""
    things = [(thing, shares(mask / 255)) for thing, mask in made.things]
    return Example(hidden, things, tuple(made.sources))


def shares(mask: np.ndarray) -> np.ndarray:
    """Of a mask (..., SIDE, SIDE) in [0, 1] the mean of each patch."""
    return mask.reshape(*mask.shape[:-2], GRID, PATCH, GRID, PATCH).mean((-3, -1)).astype(np.float32)


def image_of(composer: Composer, seed: int) -> tuple[np.ndarray, Example]:
    """A picture as the encoder sees it, uint8 (SIDE, SIDE, 3), and what is on it."""
    made, hidden = composer.compose(seed), hidden_patches(seed)
    made.pixels[hidden.repeat(PATCH, 0).repeat(PATCH, 1)] = np.array(PIXEL_MEAN, np.float32) * 255
    return made.pixels.round().astype(np.uint8), example_of(made, hidden)


def read_masks(cache: Path) -> dict[int, np.ndarray]:
    """The teacher's masks by number of the photograph."""
    with np.load(cache / "masks.npz") as stored:
        return {int(name): stored[name] for name in stored.files}


_composer: Composer


def _start(photos: Path, cache: Path) -> None:
    global _composer
    torch.set_num_threads(1)
    _composer = Composer(read_photos(photos), read_masks(cache))


def _image(seed: int) -> tuple[np.ndarray, Example]:
    return image_of(_composer, seed)


@torch.no_grad()
def compose(photos: Path, weights: Path, cache: Path, number: int, workers: int, device: str) -> None:
    """Write `composites.npy`, their features, and `examples.npz`, what is on them, to the cache.

    Worker processes compose, this one encodes.
    """
    classifier = read_classifier(weights)
    basis = basis_of(classifier).to(device)
    classifier, features, examples = classifier.to(device), None, []
    with multiprocessing.get_context("spawn").Pool(workers, _start, (photos, cache)) as pool:
        images = pool.imap(_image, range(number), chunksize=BATCH)
        while batch := list(islice(images, BATCH)):
            pixels = pixels_of(np.stack([image for image, _ in batch])).to(device)
            kept = features_of(classifier, basis, pixels)[0].half().cpu().numpy()
            if features is None:
                shape = (number, *kept.shape[1:])
                features = np.lib.format.open_memmap(cache / "composites.npy", "w+", np.float16, shape)
            features[len(examples) : len(examples) + len(batch)] = kept
            examples += [example for _, example in batch]
    save_examples(cache / "examples.npz", examples)


def save_examples(file: Path, examples: list[Example]) -> None:
    """Arrays alone: nothing that would have to be unpickled."""
    counts = [len(example.things) for example in examples]
    things = [thing for example in examples for thing, _ in example.things]
    np.savez_compressed(
        file,
        hidden=np.stack([example.hidden for example in examples]),
        counts=np.array(counts),
        sources=np.array([source for example in examples for source in example.sources]),
        source_counts=np.array([len(example.sources) for example in examples]),
        imagenet=np.array([thing if isinstance(thing, int) else -1 for thing in things]),
        coco=np.array([thing if isinstance(thing, str) else "" for thing in things]),
        shares=np.stack([share for example in examples for _, share in example.things]).astype(np.float16),
    )


def read_examples(file: Path) -> list[Example]:
    """What `save_examples` wrote."""
    with np.load(file) as stored:
        kept = {name: stored[name] for name in stored.files}
    names = [int(i) if i >= 0 else str(n) for i, n in zip(kept["imagenet"], kept["coco"], strict=True)]
    placed = list(zip(names, kept["shares"].astype(np.float32), strict=True))
    things, sources = _split(placed, kept["counts"]), _split(kept["sources"].tolist(), kept["source_counts"])
    parts = zip(kept["hidden"], things, sources, strict=True)
    return [Example(hidden, own, tuple(numbers)) for hidden, own, numbers in parts]


def _split(values: list[Any], counts: np.ndarray) -> list[list[Any]]:
    """Lists of so many of the values each."""
    return [values[end - count : end] for count, end in zip(counts, counts.cumsum(), strict=True)]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--number", type=int, default=4000)
    made.add_argument("--workers", type=int, default=2)
    made.add_argument("--device", default="cpu")
    compose(**vars(made.parse_args()))


if __name__ == "__main__":
    main()
