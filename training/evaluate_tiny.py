"""Choose a tiny model's layer, head, DropOut step, threshold, blur and CRF on validation scenes,
and report on test scenes: ITM accuracy, mIoU per (layer, head), ablation, colour-swap control.

    uv run python -m training.evaluate_tiny /tmp/tiny-0 --out /tmp/tiny-0/report.json

Masks of validation scenes are used to choose and those of test scenes to report; training sees none.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pnp_core.data import ClassMaps
from pnp_core.inputs.scenes import drawing
from pnp_core.inputs.scenes.shapes import CLASS_NAMES, CLASSES
from pnp_core.masks.config import CrfConfig, MaskConfig
from pnp_core.methods.pnp.backbones import Backbone, load_backbone, locate_checkpoint
from pnp_core.methods.pnp.channels import make_label_map
from pnp_core.methods.pnp.config import BackboneConfig, CaptionConfig, DropoutConfig, PnpConfig
from pnp_core.methods.pnp.dropout import salience_dropout
from pnp_core.methods.pnp.layers import Kind
from pnp_core.methods.pnp.loaded import model_pixels
from pnp_core.methods.pnp.prompts import Prompts, build_prompts, stack_prompts
from pnp_core.metrics import ConfusionMatrix

CAPTIONS = CaptionConfig(mode="per_class")
THRESHOLDS = (0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
CRF_THRESHOLDS = (0.06, 0.1, 0.2, 0.3, 0.4)
BLURS = (0.02, 0.03, 0.05)
STEPS = (1, 2, 3, 4, 6)
COLOUR_WIDTHS = (5.0, 13.0, 20.0)
CRF_IMAGES = 60
"""Settings that go through the CRF are compared on so many pictures."""
BATCH = 32
PLAIN = MaskConfig(background="always", crf=CrfConfig(name="off"), blur=0.0)
"""Threshold and argmax only."""


@dataclass(frozen=True)
class Images:
    """Rendered scenes with ground truth."""

    scenes: list[drawing.Scene]
    pixels: list[np.ndarray]
    truth: list[np.ndarray]

    @classmethod
    def of(cls, drawn: Iterable[drawing.Scene]) -> Images:
        """Render scenes."""
        kept = list(drawn)
        pairs = [drawing.render(scene) for scene in kept]
        return cls(kept, [p for p, _ in pairs], [t for _, t in pairs])


@dataclass(frozen=True)
class Setting:
    """Everything that is chosen on validation."""

    layer: int
    head: int
    kind: Kind = "gradcam"
    step: int = 2
    iterations: int = 1
    masks: MaskConfig = PLAIN


class Model:
    """A checkpoint under evaluation."""

    def __init__(self, folder: Path) -> None:
        config = BackboneConfig(checkpoint=str(folder), image_size=96)
        self.backbone: Backbone = load_backbone(config, locate_checkpoint(config), "cpu")

    @lru_cache(maxsize=4096)  # noqa: B019 - one model lives as long as the script
    def prompts(self, class_ids: tuple[int, ...]) -> Prompts:
        """Captions of some classes."""
        return build_prompts([CLASS_NAMES[c - 1] for c in class_ids], CAPTIONS, self.backbone)

    def maps(self, images: Images, setting: Setting) -> list[ClassMaps]:
        """Salience of every picture for the classes in it."""
        config = DropoutConfig(iterations=setting.iterations, amount=setting.step)
        found: list[ClassMaps] = []
        for start in range(0, len(images.pixels), BATCH):
            group = images.scenes[start : start + BATCH]
            pixels = torch.stack([model_pixels(p, (96, 96)) for p in images.pixels[start : start + BATCH]])
            prompts = stack_prompts([self.prompts(scene.class_ids) for scene in group])
            result = salience_dropout(self.backbone, pixels, prompts, config, setting.layer, setting.head, setting.kind)
            for i, scene in enumerate(group):
                number = len(scene.class_ids)
                maps = result.maps[i, :, :number].unflatten(-1, self.backbone.grid).numpy()
                found.append(ClassMaps(maps, scene.class_ids, result.itm[i, :number].numpy(), scene.size, scene.size))
        return found

    @torch.no_grad()
    def itm_accuracy(self, images: Images) -> float:
        """Share of right match decisions, as many absent as present classes, absent ones at random."""
        rng = np.random.default_rng(0)
        right = total = 0
        for image, scene in zip(images.pixels, images.scenes, strict=True):
            absent = [c for c in range(1, len(CLASSES) + 1) if c not in scene.class_ids]
            asked = (*scene.class_ids, *(int(c) for c in rng.choice(absent, len(scene.class_ids), replace=False)))
            prompts = stack_prompts([self.prompts(asked)])
            tokens = self.backbone.encode_image(model_pixels(image, (96, 96))[None])
            itm = self.backbone.match(tokens, prompts.ids, prompts.mask, [0]).itm[0]
            present = torch.tensor([c in scene.class_ids for c in asked])
            right += int(((itm > 0.5) == present).sum())
            total += len(asked)
        return right / total


def miou(images: Images, maps: Sequence[ClassMaps], config: MaskConfig) -> float:
    """Dataset mIoU over background and the classes present."""
    total = ConfusionMatrix.zeros(len(CLASSES) + 1)
    for pixels, truth, salience in zip(images.pixels, images.truth, maps, strict=True):
        total += ConfusionMatrix.of(truth, make_label_map(salience, pixels, config, PnpConfig()).labels, 21)
    return total.mean_iou()


def best_masks(
    images: Images, maps: Sequence[ClassMaps], base: MaskConfig, **grid: Sequence[Any]
) -> tuple[float, MaskConfig]:
    """The best value of each combination of a grid over mask settings."""
    options = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    configs = [base.model_copy(update=option) for option in options]
    return max(((miou(images, maps, c), c) for c in configs), key=lambda pair: pair[0])


def choose(model: Model, images: Images) -> tuple[Setting, dict[str, float]]:
    """Layer and head without CRF; then DropOut step and threshold, then blur and colour width, with it.

    Returns:
        The setting, and the best mIoU per "layer.head" without DropOut, blur and CRF.
    """
    per_head: dict[str, tuple[float, Setting]] = {}
    for layer, head in product(range(model.backbone.layers), range(model.backbone.heads)):
        setting = Setting(layer, head)
        value, masks = best_masks(images, model.maps(images, setting), setting.masks, threshold=THRESHOLDS)
        per_head[f"{layer}.{head}"] = (value, setting)
    _, best = max(per_head.values(), key=lambda pair: pair[0])

    some = Images(*(part[:CRF_IMAGES] for part in (images.scenes, images.pixels, images.truth)))
    refined = PLAIN.model_copy(update={"blur": BLURS[1], "crf": CrfConfig(bilateral_srgb=COLOUR_WIDTHS[1])})
    tried = []
    for step in STEPS:
        setting = replace(best, step=step, iterations=4)
        value, masks = best_masks(some, model.maps(some, setting), refined, threshold=CRF_THRESHOLDS)
        print(f"4 passes, step {step}: mIoU {value:.3f} at threshold {masks.threshold}", flush=True)
        tried.append((value, replace(setting, masks=masks)))
    _, best = max(tried, key=lambda pair: pair[0])
    crfs = [CrfConfig(bilateral_srgb=width) for width in COLOUR_WIDTHS]
    value, masks = best_masks(some, model.maps(some, best), best.masks, blur=BLURS, crf=crfs)
    print(f"chosen: {value:.3f} {masks}", flush=True)
    return replace(best, masks=masks), {name: value for name, (value, _) in per_head.items()}


def ablation(model: Model, validation: Images, test: Images, chosen: Setting) -> dict[str, float]:
    """Test mIoU as the parts are added; each rung has its own threshold, chosen on validation."""
    rungs = {
        "attention": replace(chosen, kind="attention", iterations=1, masks=PLAIN),
        "+ GradCAM": replace(chosen, iterations=1, masks=PLAIN),
        "+ DropOut": replace(chosen, masks=PLAIN),
        "+ blur": replace(chosen, masks=PLAIN.model_copy(update={"blur": chosen.masks.blur})),
    }
    results = {}
    for name, setting in rungs.items():
        _, masks = best_masks(validation, model.maps(validation, setting), setting.masks, threshold=THRESHOLDS)
        results[name] = miou(test, model.maps(test, setting), masks)
    results["+ CRF"] = miou(test, model.maps(test, chosen), chosen.masks)
    without = replace(chosen, iterations=1)
    results["without DropOut"] = miou(test, model.maps(test, without), chosen.masks)
    return results


def _two_groups(rng: np.random.Generator, lean: float) -> drawing.Scene:
    """Two objects whose classes lean to different hues."""
    while True:
        a, b = (int(c) for c in rng.integers(1, len(CLASSES) + 1, 2))
        if drawing.group_hue(a) != drawing.group_hue(b):
            scene = drawing.sample_scene(rng, [a, b], lean)
            if len(scene.objects) == 2:
                return scene


def peaks(model: Model, images: Images, setting: Setting) -> dict[str, float]:
    """Where the summed salience of a class peaks: on its object, on the other one, on the ground."""
    counts = {"own object": 0, "other object": 0, "background": 0}
    for maps, truth in zip(model.maps(images, setting), images.truth, strict=True):
        summed = maps.maps.sum(axis=0)
        cell = truth.shape[0] // summed.shape[1]
        for c, class_id in enumerate(maps.classes):
            y, x = np.unravel_index(summed[c].argmax(), summed[c].shape)
            patch = truth[y * cell : (y + 1) * cell, x * cell : (x + 1) * cell]
            if (patch == class_id).any():
                counts["own object"] += 1
            else:
                counts["other object" if patch.any() else "background"] += 1
    total = sum(counts.values())
    return {name: number / total for name, number in counts.items()}


def colour_control(model: Model, setting: Setting, number: int) -> dict[str, dict[str, float]]:
    """Two objects of different hue groups: as in nature, and with their hues swapped."""
    rng = np.random.default_rng(77)
    natural = [_two_groups(rng, lean=1.0) for _ in range(number)]
    results = {}
    for name, drawn in (("natural hues", natural), ("swapped hues", [drawing.swap_hues(s) for s in natural])):
        images = Images.of(drawn)
        results[name] = {
            **peaks(model, images, setting),
            "itm": model.itm_accuracy(images),
            "miou": miou(images, model.maps(images, setting), setting.masks),
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--validation", type=int, default=150)
    parser.add_argument("--test", type=int, default=200)
    arguments = parser.parse_args()
    model = Model(arguments.checkpoint)
    validation = Images.of(drawing.make_scene("validation", i) for i in range(arguments.validation))
    test = Images.of(drawing.make_scene("test", i) for i in range(arguments.test))
    setting, per_head_validation = choose(model, validation)
    per_head = {}
    for layer, head in product(range(model.backbone.layers), range(model.backbone.heads)):
        for kind in ("attention", "gradcam"):
            rung = Setting(layer, head, kind)
            _, masks = best_masks(validation, model.maps(validation, rung), rung.masks, threshold=THRESHOLDS)
            per_head[f"layer {layer} head {head} {kind}"] = miou(test, model.maps(test, rung), masks)
    report = {
        "chosen": {
            "layer": setting.layer, "head": setting.head, "step": setting.step, "iterations": setting.iterations,
            "masks": setting.masks.model_dump(),
        },
        "validation miou per head": per_head_validation,
        "test itm accuracy": model.itm_accuracy(test),
        "test miou per head": per_head,
        "test ablation": ablation(model, validation, test, setting),
        "colour control": colour_control(model, setting, 150),
    }  # fmt: skip
    arguments.out.write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
