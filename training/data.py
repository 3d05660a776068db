"""Training pictures for the tiny model: whole scenes and single-object windows, with class labels only.

No mask is handed to the training: a picture comes with the classes it shows, nothing else.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling

from pnp_core.inputs.scenes.drawing import Scene, SceneObject, make_scene, random_look, render
from pnp_core.inputs.scenes.shapes import CLASS_NAMES

MODEL_SIZE = 96
WINDOW_SIZE = 48
WINDOW_SEED = 11


@dataclass(frozen=True)
class ImageBank:
    """Pictures (n, 3, size, size) uint8 and the classes each shows (n, classes) bool."""

    images: torch.Tensor
    labels: torch.Tensor

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[indices], self.labels[indices]

    def __len__(self) -> int:
        return len(self.images)


def _one_hot(class_ids: tuple[int, ...]) -> np.ndarray:
    labels = np.zeros(len(CLASS_NAMES), dtype=bool)
    labels[np.array(class_ids) - 1] = True
    return labels


def _shrink(image: np.ndarray, size: int) -> np.ndarray:
    small = Image.fromarray(image).resize((size, size), Resampling.BICUBIC)
    return np.asarray(small).transpose(2, 0, 1)


def _scene(index: int) -> tuple[np.ndarray, np.ndarray]:
    scene = make_scene("train", index)
    return _shrink(render(scene)[0], MODEL_SIZE), _one_hot(scene.class_ids)


def _window(index: int) -> tuple[np.ndarray, np.ndarray]:
    """One object that fills a window of a quarter of the model's field of view."""
    rng = np.random.default_rng([WINDOW_SEED, index])
    class_id = int(rng.integers(1, len(CLASS_NAMES) + 1))
    x, y = rng.uniform(0.42, 0.58, 2)
    obj = SceneObject(class_id, x, y, rng.uniform(0.32, 0.5), **random_look(rng, class_id, 0.5))
    scene = Scene((obj,), background_seed=int(rng.integers(0, 2**31)), size=MODEL_SIZE)
    return _shrink(render(scene)[0], WINDOW_SIZE), _one_hot((class_id,))


def _empty(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A ground without any object, which no scene of a split has: their seeds end at 2^31."""
    scene = Scene((), background_seed=2**31 + index)
    return _shrink(render(scene)[0], MODEL_SIZE), np.zeros(len(CLASS_NAMES), dtype=bool)


def _render_bank(make, count: int, workers: int) -> ImageBank:
    with ProcessPoolExecutor(workers) as pool:
        pairs = list(pool.map(make, range(count), chunksize=256))
    images, labels = (np.stack(column) for column in zip(*pairs, strict=True))
    return ImageBank(torch.from_numpy(images), torch.from_numpy(labels))


def scene_bank(count: int, workers: int = 2) -> ImageBank:
    """The first `count` scenes of the train split at the model's size."""
    return _render_bank(_scene, count, workers)


def window_bank(count: int, workers: int = 2) -> ImageBank:
    """`count` single-object windows, hues arbitrary half of the time."""
    return _render_bank(_window, count, workers)


def empty_bank(count: int, workers: int = 2) -> ImageBank:
    """`count` scenes without any object."""
    return _render_bank(_empty, count, workers)


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip, permute colour channels and change the contrast at random; uint8 in, float [0, 1] out."""
    x = images.float() / 255
    n = len(x)
    flip = torch.rand(n, generator=generator) < 0.5
    x[flip] = x[flip].flip(-1)
    recolour = torch.rand(n, generator=generator) < 0.25
    order = torch.rand(n, 3, generator=generator).argsort(dim=1)
    order[~recolour] = torch.arange(3)
    x = x.gather(1, order[:, :, None, None].expand_as(x))
    gain = 1 + 0.4 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    shift = 0.2 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    return ((x - 0.5) * gain + 0.5 + shift).clamp(0, 1)
