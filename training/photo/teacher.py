"""The classifier as a teacher: where each name of a photograph is, with no mask from anybody.

Class activation maps of several scales, mirrored too, say where; a dense CRF follows the photograph's own edges.
For names that ImageNet lacks (person, giraffe ...) a linear map of the features learns from which photographs have
them (multiple-instance learning). Its maps take the place of the classifier's.

    uv run python -m training.photo.teacher --photos FOLDER --weights FILE.pth --cache CACHE
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from pnp_core.masks.config import CrfConfig
from pnp_core.masks.grids import blur_matrix, min_max, resize_matrix
from pnp_core.masks.refine import open_refiner
from training.photo.arguments import parser
from training.photo.encoder import Classifier, pixels_of, read_classifier, squashed
from training.photo.photos import Names, Photo, names_of, read_photos

SIDE, LARGE = 320, 448
"""Scales of the maps; features are kept of the first, and of its mirror image."""
GRID, MAP = SIDE // 16, LARGE // 16
DEEP = 256
"""Features are kept in the frame of so many principal directions of the classifier's rows, then the middle ones."""
WIDE = 120
"""A photograph's class is looked for as itself and as the widest name with at most so many classes."""
CRF = CrfConfig(bilateral_srgb=13)
FAR_FROM_TEACHER = frozenset({"person", "dining table", "potted plant", "chair"})
"""Names whose few ImageNet classes are not what they mean in most photographs."""
WEAK = 0.2
"""Below this square root of a probability the classifier does not see a name."""


def basis_of(classifier: Classifier) -> torch.Tensor:
    """Orthonormal rows (DEEP, 1280) that span most of what the classifier looks at."""
    return torch.linalg.svd(classifier.rows, full_matrices=False)[2][:DEEP]


def features_of(classifier: Classifier, basis: torch.Tensor, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of pictures (B, 3, S, S): kept features (B, C, S / 16, S / 16), and the classifier's own (B, 1280, ...)."""
    middle, deep = classifier.encoder(pixels)
    return torch.cat([torch.einsum("kc,bchw->bkhw", basis, deep), middle], 1), deep


@dataclass(frozen=True)
class Seen:
    """What the classifier sees of a photograph.

    Attributes:
        maps: probability of each thing, or of each way to say it, (n, MAP, MAP).
        features: of the photograph and of its mirror image (2, DEEP + middle, GRID, GRID), half precision.
    """

    maps: np.ndarray
    features: np.ndarray


class Looker:
    """Looks at photographs, one worker process each."""

    def __init__(self, weights: Path, photos: list[Photo], names: Names) -> None:
        torch.set_num_threads(1)
        self.classifier = read_classifier(weights)
        self.basis = basis_of(self.classifier)
        self.photos, self.names = photos, names

    def groups(self, photo: Photo) -> list[list[int]]:
        """ImageNet classes whose probability is summed to a map: of a class two maps, of COCO's names one each."""
        if photo.imagenet is None:
            return [sorted(self.names.classes[self.names.concept[name]]) for name in photo.coco]
        wider = [c for c in self.names.classes if photo.imagenet in c and len(c) <= WIDE]
        return [[photo.imagenet], sorted(max(wider, key=len))]

    @torch.no_grad()
    def look(self, number: int) -> Seen:
        photo = self.photos[number]
        image = Image.open(photo.file)
        groups, maps, features = self.groups(photo), [], []
        for side, mirrored in ((SIDE, False), (SIDE, True), (LARGE, False)):
            pixels = pixels_of(squashed(image, side)[None])
            kept, deep = features_of(self.classifier, self.basis, pixels.flip(-1) if mirrored else pixels)
            probabilities = self.classifier.probabilities(deep[0])
            if side == SIDE:
                features.append(kept[0].half().numpy())
            none = torch.zeros_like(probabilities[0])
            found = torch.stack([probabilities[group].sum(0) if group else none for group in groups] or [none])
            found = found.flip(-1) if mirrored else found
            maps.append(F.interpolate(found[None], (MAP, MAP), mode="bilinear", align_corners=True)[0])
        return Seen(torch.stack(maps).mean(0).numpy(), np.stack(features))


@dataclass(frozen=True)
class Instances:
    """Places of COCO's names, from photographs that have them and photographs that have not."""

    labels: list[str]
    maps: dict[int, np.ndarray]
    """Of each COCO photograph by number: probability per label and place (labels, GRID, GRID)."""


def learn_instances(
    features: np.ndarray, photos: list[Photo], names: Names, seed: int = 0, steps: int = 1500
) -> Instances:
    """A linear map from features to COCO's names; a photograph pools the places that speak for a name.

    COCO's photographs are labelled wholly; of ImageNet's nobody knows whether people are in them, so they count less.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.from_numpy(features).float().flatten(3)
    mean, std = x.mean((0, 1, 3))[:, None], x.std((0, 1, 3))[:, None] + 1e-3
    coco = torch.tensor([i for i, photo in enumerate(photos) if photo.imagenet is None])
    imagenet = torch.tensor([i for i, photo in enumerate(photos) if photo.imagenet is not None])
    labels = sorted({name for photo in photos for name in photo.coco})
    present = torch.tensor([[name in photo.coco for name in labels] for photo in photos]).float()
    weight = torch.ones_like(present)
    for column, name in enumerate(labels):
        own = names.classes[names.concept[name]]
        weight[imagenet, column] = torch.tensor([0 if photos[i].imagenet in own else 0.15 for i in imagenet])
    weight[imagenet, labels.index("person")] = 0.03
    head = nn.Linear(x.shape[2], len(labels))
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, -4)
    optimizer = torch.optim.AdamW(head.parameters(), 3e-3, weight_decay=0.3)

    def logits(part: torch.Tensor) -> torch.Tensor:
        return torch.einsum("kc,bcp->bkp", head.weight, (part - mean) / std) + head.bias[:, None]

    for _ in range(steps):
        chosen = torch.cat([group[torch.randint(len(group), (24,), generator=generator)] for group in (coco, imagenet)])
        place = logits(x[chosen, torch.randint(2, (48,), generator=generator)])
        hidden = torch.rand(48, 1, place.shape[-1], generator=generator) > 0.6
        place = place.masked_fill(hidden, -30)
        pooled = (place.softmax(-1) * place).sum(-1)
        truth = present[chosen]
        loss = F.binary_cross_entropy_with_logits(pooled, truth, reduction="none") * (1 + 7 * truth) * weight[chosen]
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    with torch.no_grad():
        plain, mirrored = (logits(x[coco, i]).sigmoid().unflatten(-1, (GRID, GRID)) for i in (0, 1))
        found = ((plain + mirrored.flip(-1)) / 2).numpy()
    return Instances(labels, dict(zip(coco.tolist(), found, strict=True)))


def thing_maps(number: int, photo: Photo, seen: np.ndarray, instances: Instances) -> np.ndarray:
    """One map (MAP, MAP) in [0, 1] for each thing that a photograph is labelled with."""
    scores = seen.astype(np.float32) ** 0.5
    if photo.imagenet is not None:
        return min_max(scores).mean(0, keepdims=True)
    maps = []
    for own, name in zip(scores, photo.coco, strict=True):
        learnt = min_max(instances.maps[number][instances.labels.index(name)][None] ** 0.5)
        up = resize_matrix(MAP, GRID)
        learnt = (up @ learnt @ up.T)[0]
        far = own.max() < WEAK or name in FAR_FROM_TEACHER
        maps.append(learnt if far else (min_max(own[None])[0] + 0.5 * learnt) / 1.5)
    return np.stack(maps)


def refine(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Maps (n, MAP, MAP) to masks (n, SIDE, SIDE) uint8 that follow the picture's edges; they do not overlap."""
    smooth = blur_matrix(SIDE, 5.0) @ resize_matrix(SIDE, MAP)
    scores = min_max(smooth @ maps.astype(np.float32) @ smooth.T)
    background = np.clip(1 - 1.6 * scores.max(0), 0, 1)
    (refined,) = open_refiner(CRF)([np.concatenate([background[None], scores])], [image])
    best = refined.argmax(0)
    return (best == np.arange(1, len(maps) + 1)[:, None, None]).astype(np.uint8)


_looker: Looker


def _start(weights: Path, photos: Path) -> None:
    global _looker
    known = read_photos(photos)
    _looker = Looker(weights, known, names_of(known))


def _look(number: int) -> Seen:
    return _looker.look(number)


def _refine(job: tuple[Path, np.ndarray]) -> np.ndarray:
    torch.set_num_threads(1)
    return refine(squashed(Image.open(job[0]), SIDE), job[1])


def _jobs(photos: list[Photo], seen: list[Seen], instances: Instances) -> Iterator[tuple[Path, np.ndarray]]:
    for number, photo in enumerate(photos):
        if photo.things:
            yield photo.file, thing_maps(number, photo, seen[number].maps, instances)


def teach(photos: Path, weights: Path, cache: Path, workers: int) -> None:
    """Write `features.npy` and `masks.npz` (of photograph i, where it has things) to the cache."""
    known = read_photos(photos)
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(workers, _start, (weights, photos)) as pool:
        seen = list(pool.imap(_look, range(len(known)), chunksize=8))
    features = np.stack([one.features for one in seen])
    np.save(cache / "features.npy", features)
    instances = learn_instances(features, known, names_of(known))
    with spawn.Pool(workers) as pool:
        masks = pool.imap(_refine, _jobs(known, seen, instances), chunksize=8)
        labelled = (number for number, photo in enumerate(known) if photo.things)
        np.savez_compressed(cache / "masks.npz", **{str(n): mask for n, mask in zip(labelled, masks, strict=True)})


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--workers", type=int, default=2)
    arguments = made.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    teach(**vars(arguments))


if __name__ == "__main__":
    main()
