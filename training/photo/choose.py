"""Choose the photo model's settings on validation pictures, and report what each step of the method adds.

    uv run python -m training.photo.choose --checkpoint FOLDER --data VOCdevkit --split train

Everything goes through the pipeline's own code: salience, DropOut, channels, CRF. Masks of the split choose, so it
must not be the split that is reported.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch

from pnp_core.backbones import Backbone, load_backbone, locate_checkpoint
from pnp_core.cards import load_card
from pnp_core.config import BackboneConfig, CaptionConfig, CrfConfig, DropoutConfig, MaskConfig
from pnp_core.dropout import salience_dropout
from pnp_core.images import decode_image, decode_label_map
from pnp_core.masks import make_label_map
from pnp_core.metrics import ConfusionMatrix
from pnp_core.prompts import build_prompts, stack_prompts
from pnp_core.readers import open_dataset, resolve_card
from pnp_core.records import IGNORE, SalienceMaps
from pnp_core.salience import Kind
from pnp_core.stages.salience import model_pixels

CAPTIONS = CaptionConfig(mode="per_class")
PASSES = 4


@dataclass(frozen=True)
class Labelled:
    """A picture, its ground truth, and the classes on it."""

    picture: np.ndarray
    truth: np.ndarray
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Data:
    """Pictures with masks, and the names of the classes."""

    names: tuple[str, ...]
    pictures: list[Labelled]

    @classmethod
    def read(cls, dataset: str, root: str, split: str) -> Data:
        card = resolve_card(load_card(dataset), root)
        found = []
        for sample in open_dataset(card, root, split).samples():
            truth = decode_label_map(sample.label_map or b"")
            classes = tuple(int(c) for c in np.unique(truth) if 0 < c < IGNORE)
            found.append(Labelled(decode_image(sample.image, 10**8).pixels, truth, classes))
        return cls(tuple(card.captions), [one for one in found if one.classes])


def salience_of(
    backbone: Backbone, data: Data, head: int, dropout: DropoutConfig, kind: Kind = "gradcam"
) -> list[SalienceMaps]:
    """Maps of every picture with its own classes as candidates."""
    found = []
    for one in data.pictures:
        prompts = stack_prompts([build_prompts([data.names[c - 1] for c in one.classes], CAPTIONS, backbone)])
        pixels = model_pixels(
            one.picture, (backbone.grid[0] * backbone.patch_size, backbone.grid[1] * backbone.patch_size)
        )
        maps = salience_dropout(backbone, pixels[None], prompts, dropout, 0, head, kind)
        stacked = maps.maps[0].unflatten(-1, backbone.grid).numpy()
        found.append(SalienceMaps(stacked, one.classes, maps.itm[0].numpy(), *one.truth.shape))
    return found


def mean_iou(data: Data, maps: Sequence[SalienceMaps], config: MaskConfig) -> float:
    """mIoU with background over the classes there are."""
    total = ConfusionMatrix.zeros(len(data.names) + 1)
    for one, salience in zip(data.pictures, maps, strict=True):
        labels = make_label_map(salience, one.picture, config).labels
        total += ConfusionMatrix.of(one.truth, labels, len(data.names) + 1)
    return total.mean_iou()


@torch.no_grad()
def match_scores(backbone: Backbone, data: Data) -> np.ndarray:
    """Match probability of every picture with every class (pictures, classes)."""
    prompts = build_prompts(data.names, CAPTIONS, backbone)
    sides = (backbone.grid[0] * backbone.patch_size, backbone.grid[1] * backbone.patch_size)
    tokens = (backbone.encode_image(model_pixels(one.picture, sides)[None]) for one in data.pictures)
    return torch.cat([backbone.match(t, prompts.ids[None], prompts.mask[None], []).itm for t in tokens]).numpy()


def area_under_curve(scores: np.ndarray, present: np.ndarray) -> float:
    """How often a picture with a class scores above one without it; ties count half."""
    above = scores[present][:, None] - scores[~present]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def aucs(data: Data, scores: np.ndarray) -> dict[str, float]:
    """By class, of those that some pictures have and some have not."""
    present = np.array([[c in one.classes for c in range(1, len(data.names) + 1)] for one in data.pictures])
    mixed = [c for c in range(len(data.names)) if 0 < present[:, c].sum() < len(present)]
    return {data.names[c]: area_under_curve(scores[:, c], present[:, c]) for c in mixed}


def plain(threshold: float, blur: float = 0.02, **crf: float | str) -> MaskConfig:
    settings = CrfConfig.model_validate(crf or {"name": "off"})
    return MaskConfig(background="always", threshold=threshold, blur=blur, crf=settings)


def load(checkpoint: str, side: int) -> Backbone:
    config = BackboneConfig(name="photo", checkpoint=checkpoint, image_size=side)
    return load_backbone(config, locate_checkpoint(config), "cpu")


def rows(checkpoint: str, data: Data) -> Iterator[tuple[str, float]]:
    """Settings and what they are worth, coarse to fine."""
    for side in (320, 384, 448):
        backbone = load(checkpoint, side)
        yield f"{side} match AUC", float(np.mean(list(aucs(data, match_scores(backbone, data)).values())))
        for head, kind in product(range(backbone.heads), ("attention", "gradcam")):
            maps = salience_of(backbone, data, head, DropoutConfig(iterations=1), kind)
            best = max((mean_iou(data, maps, plain(t)), t) for t in (0.05, 0.1, 0.2, 0.3))
            yield f"{side} head {head} {kind}, threshold {best[1]}", best[0]


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--checkpoint", required=True)
    made.add_argument("--data", required=True)
    made.add_argument("--dataset", default="voc21")
    made.add_argument("--split", default="train")
    arguments = made.parse_args()
    data = Data.read(arguments.dataset, str(Path(arguments.data).resolve()), arguments.split)
    for setting, value in rows(arguments.checkpoint, data):
        print(f"{value:.3f}  {setting}", flush=True)


if __name__ == "__main__":
    main()
