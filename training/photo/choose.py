"""Choose the photo model's settings on validation pictures, and report what each step of the method adds.

    uv run python -m training.photo.choose settings steps candidates --checkpoint FOLDER --data VOCdevkit --split train

Everything goes through the pipeline's own code: salience, DropOut, channels, CRF. Masks of the split choose, so it
must not be the split that is reported.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

from pnp_core.data import IGNORE, ClassMaps
from pnp_core.inputs.cards import load_card
from pnp_core.inputs.images import decode_image, decode_label_map
from pnp_core.inputs.readers import open_dataset, resolve_card
from pnp_core.masks.config import CrfConfig, MaskConfig
from pnp_core.methods.pnp.backbones import Backbone, load_backbone, locate_checkpoint
from pnp_core.methods.pnp.channels import make_label_map
from pnp_core.methods.pnp.config import BackboneConfig, CaptionConfig, DropoutConfig, PnpConfig
from pnp_core.methods.pnp.dropout import salience_dropout
from pnp_core.methods.pnp.layers import Kind
from pnp_core.methods.pnp.loaded import model_pixels
from pnp_core.methods.pnp.prompts import build_prompts, stack_prompts
from pnp_core.metrics import ConfusionMatrix

CAPTIONS = CaptionConfig(mode="per_class")
PASSES = 4
SIDE, THRESHOLD, BLUR = 384, 0.2, 0.04
"""Of the preset."""
Rows = Iterator[tuple[str, float]]
"""Settings and what they are worth."""


@dataclass(frozen=True)
class Labelled:
    """A picture, its ground truth, and the classes on it."""

    image: np.ndarray
    truth: np.ndarray
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Data:
    """Pictures with masks, and the names of the classes."""

    names: tuple[str, ...]
    images: list[Labelled]

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
    backbone: Backbone, data: Data, layer: int, head: int, dropout: DropoutConfig, kind: Kind = "gradcam"
) -> list[ClassMaps]:
    """Maps of every picture with its own classes as candidates."""
    found = []
    for one in data.images:
        if not one.classes:
            found.append(ClassMaps(np.zeros((1, 0, *backbone.grid), np.float32), (), np.zeros(0), *one.truth.shape))
            continue
        prompts = stack_prompts([build_prompts([data.names[c - 1] for c in one.classes], CAPTIONS, backbone)])
        pixels = model_pixels(
            one.image, (backbone.grid[0] * backbone.patch_size, backbone.grid[1] * backbone.patch_size)
        )
        maps = salience_dropout(backbone, pixels[None], prompts, dropout, layer, head, kind)
        stacked = maps.maps[0].unflatten(-1, backbone.grid).numpy()
        found.append(ClassMaps(stacked, one.classes, maps.itm[0].numpy(), *one.truth.shape))
    return found


def mean_iou(data: Data, maps: Sequence[ClassMaps], config: MaskConfig) -> float:
    """mIoU with background over the classes there are."""
    total = ConfusionMatrix.zeros(len(data.names) + 1)
    for one, salience in zip(data.images, maps, strict=True):
        labels = make_label_map(salience, one.image, config, PnpConfig()).labels
        total += ConfusionMatrix.of(one.truth, labels, len(data.names) + 1)
    return total.mean_iou()


@torch.no_grad()
def match_scores(backbone: Backbone, data: Data) -> np.ndarray:
    """Match probability of every picture with every class (pictures, classes)."""
    prompts = build_prompts(data.names, CAPTIONS, backbone)
    sides = (backbone.grid[0] * backbone.patch_size, backbone.grid[1] * backbone.patch_size)
    tokens = (backbone.encode_image(model_pixels(one.image, sides)[None]) for one in data.images)
    return torch.cat([backbone.match(t, prompts.ids[None], prompts.mask[None], []).itm for t in tokens]).numpy()


def area_under_curve(scores: np.ndarray, present: np.ndarray) -> float:
    """How often a picture with a class scores above one without it; ties count half."""
    above = scores[present][:, None] - scores[~present]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def aucs(data: Data, scores: np.ndarray) -> dict[str, float]:
    """By class, of those that some pictures have and some have not."""
    present = np.array([[c in one.classes for c in range(1, len(data.names) + 1)] for one in data.images])
    mixed = [c for c in range(len(data.names)) if 0 < present[:, c].sum() < len(present)]
    return {data.names[c]: area_under_curve(scores[:, c], present[:, c]) for c in mixed}


def plain(threshold: float, blur: float = 0.02, **crf: float | str) -> MaskConfig:
    settings = CrfConfig.model_validate(crf or {"name": "off"})
    return MaskConfig(background="always", threshold=threshold, blur=blur, crf=settings)


def load(checkpoint: str, side: int) -> Backbone:
    config = BackboneConfig(name="photo", checkpoint=checkpoint, image_size=side)
    return load_backbone(config, locate_checkpoint(config), "cpu")


def settings(checkpoint: str, data: Data) -> Rows:
    """Sides, heads and layers."""
    for side in (320, 384, 448):
        yield from auc_row(load(checkpoint, side), data, side)
    backbone = load(checkpoint, SIDE)
    for layer, head, kind in product(range(backbone.layers), range(backbone.heads), ("attention", "gradcam")):
        maps = salience_of(backbone, data, layer, head, DropoutConfig(iterations=1), kind)
        yield f"layer {layer} head {head} {kind}", best_plain(data, maps)


def steps(checkpoint: str, data: Data) -> Rows:
    """What each step of the method adds, with the preset's layer and head."""
    backbone = load(checkpoint, SIDE)
    yield from auc_row(backbone, data, SIDE)
    for kind in ("attention", "gradcam"):
        yield kind, best_plain(data, salience_of(backbone, data, 0, 0, DropoutConfig(iterations=1), kind))
    for strategy, amount in (("count", 10), ("count", 25), ("count", 50), ("mass", 0.5), ("fraction", 0.3)):
        dropout = DropoutConfig.model_validate({"iterations": PASSES, "strategy": strategy, "amount": amount})
        maps = salience_of(backbone, data, 0, 0, dropout)
        yield f"DropOut {strategy} {amount}", best_plain(data, maps)
        if (strategy, amount) == ("count", 10):
            yield "DropOut, no blur", best_plain(data, maps, 0.0)
            for threshold, blur, srgb in product((0.1, 0.15, 0.2, 0.3), (0.02, 0.04), (5, 13)):
                config = plain(threshold, blur, name="dense", bilateral_srgb=srgb)
                yield f"CRF, threshold {threshold}, blur {blur}, srgb {srgb}", mean_iou(data, maps, config)


def candidates(checkpoint: str, data: Data) -> Rows:
    """Least match score of a candidate, and most candidates of a picture, all classes being asked for."""
    backbone = load(checkpoint, SIDE)
    scores = match_scores(backbone, data)
    dropout = DropoutConfig(iterations=PASSES, strategy="count", amount=10)
    there = sum(len(one.classes) for one in data.images)
    for least, most in [*product((0.2, 0.3, 0.4, 0.5, 0.7), (20,)), (0.5, 1), (0.5, 2)]:
        chosen = [[int(c) + 1 for c in np.argsort(-row)[:most] if row[c] > least] for row in scores]
        asked = [replace(one, classes=tuple(sorted(own))) for one, own in zip(data.images, chosen, strict=True)]
        pairs = zip(asked, data.images, strict=True)
        right, of = sum(len({*a.classes} & {*b.classes}) for a, b in pairs), sum(map(len, chosen))
        what = f"precision {right / max(1, of):.2f}, recall {right / there:.2f}"
        maps = salience_of(backbone, Data(data.names, asked), 0, 0, dropout)
        yield f"score above {least}, at most {most}: {what}", mean_iou(data, maps, plain(THRESHOLD, BLUR, name="dense"))


def auc_row(backbone: Backbone, data: Data, side: int) -> Rows:
    """Match AUC, its mean over the classes."""
    yield f"{side} px, match AUC", float(np.mean(list(aucs(data, match_scores(backbone, data)).values())))


def best_plain(data: Data, maps: list[ClassMaps], blur: float = 0.02) -> float:
    """mIoU without CRF at the best threshold."""
    return max(mean_iou(data, maps, plain(threshold, blur)) for threshold in (0.05, 0.1, 0.2, 0.3))


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = {"settings": settings, "steps": steps, "candidates": candidates}
    made.add_argument("what", choices=what, nargs="+")
    made.add_argument("--checkpoint", required=True)
    made.add_argument("--data", required=True)
    made.add_argument("--dataset", default="voc21")
    made.add_argument("--split", default="train")
    arguments = made.parse_args()
    data = Data.read(arguments.dataset, str(Path(arguments.data).resolve()), arguments.split)
    for one in arguments.what:
        for setting, value in what[one](arguments.checkpoint, data):
            print(f"{value:.3f}  {setting}", flush=True)


if __name__ == "__main__":
    main()
