"""What the frozen classifier alone has: its class activation map in place of the method's salience.

    uv run python -m training.photo.baseline --photos FOLDER --weights FILE.pth --dataset voc21 --data ROOT --split val

Candidates are the image-level labels; channels, blur, CRF and scores are the pipeline's own. Names that ImageNet lacks
have no map.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pnp_core.data import IGNORE, ClassMaps
from pnp_core.inputs.cards import DatasetCard, load_card
from pnp_core.inputs.images import decode_image, decode_label_map
from pnp_core.inputs.readers import open_dataset, resolve_card
from pnp_core.masks.config import CrfConfig, MaskConfig
from pnp_core.methods.pnp.channels import make_label_map
from pnp_core.methods.pnp.config import PnpConfig
from pnp_core.metrics import ConfusionMatrix
from pnp_core.runs.plan import scored_labels
from training.photo.encoder import Classifier, pixels_of, read_classifier, squashed
from training.photo.photos import names_of, read_photos
from training.photo.vocabulary import clean

THRESHOLD, BLUR = 0.25, 0.02


@torch.no_grad()
def activation_maps(classifier: Classifier, image: np.ndarray, groups: list[list[int]], side: int) -> np.ndarray:
    """Square root of the summed probability of each group of ImageNet classes (n, 1, side / 16, side / 16).

    The mean over the picture and its mirror image.
    """
    pixels = pixels_of(squashed(Image.fromarray(image), side)[None])
    probabilities = 0
    for mirrored in (False, True):
        _, deep = classifier.encoder(pixels.flip(-1) if mirrored else pixels)
        found = classifier.probabilities(deep[0])
        probabilities = probabilities + (found.flip(-1) if mirrored else found) / 2
    none = torch.zeros(probabilities.shape[1:])
    return torch.stack([probabilities[group].sum(0) if group else none for group in groups]).sqrt().numpy()


def baseline(
    classifier: Classifier, known: dict[str, list[int]], card: DatasetCard, root: str, split: str, side: int, crf: str
) -> tuple[float, int]:
    """mIoU over the scored classes there are, and how many pictures there were."""
    rule = card.background_rule
    config = MaskConfig(background=rule, threshold=THRESHOLD, blur=BLUR, crf=CrfConfig(name=crf))
    total, images = ConfusionMatrix.zeros(len(card.classes) + 1), 0
    for sample in open_dataset(card, root, split).samples():
        truth, image = decode_label_map(sample.label_map or b""), decode_image(sample.image, 10**8).pixels
        classes = tuple(int(c) for c in np.unique(truth) if 0 < c < IGNORE)
        if not classes:
            continue
        groups = [known.get(clean(card.captions[c - 1].lower()), []) for c in classes]
        maps = activation_maps(classifier, image, groups, side)[None]
        salience = ClassMaps(maps, classes, np.ones(len(classes), np.float32), *truth.shape)
        labels = make_label_map(salience, image, config, PnpConfig()).labels
        total += ConfusionMatrix.of(truth, labels, len(card.classes) + 1)
        images += 1
    return total.mean_iou("present", scored_labels(card, None)), images


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("photos", "weights"):
        made.add_argument(f"--{name}", type=Path, required=True)
    for name in ("dataset", "data", "split"):
        made.add_argument(f"--{name}", required=True)
    made.add_argument("--side", type=int, default=384)
    made.add_argument("--crf", default="dense", help="dense or off")
    asked = made.parse_args()
    names = names_of(read_photos(asked.photos))
    known = {name: sorted(names.classes[concept]) for name, concept in names.concept.items()}
    card = resolve_card(load_card(asked.dataset), asked.data)
    classifier = read_classifier(asked.weights)
    value, images = baseline(classifier, known, card, asked.data, asked.split, asked.side, asked.crf)
    print(f"{value:.3f}  {asked.dataset} {asked.split}, {images} pictures, class activation map")


if __name__ == "__main__":
    main()
