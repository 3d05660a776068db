"""PnP-OVSS as a method: weights found and loaded, maps decided on. What looks at images is imported with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pnp_core.bundled import PHOTO, TINY
from pnp_core.data import ClassMaps
from pnp_core.errors import ClassNameError
from pnp_core.inputs.scenes.shapes import CLASS_NAMES
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.label_map import Scores
from pnp_core.methods.base import LoadedMethod, Method
from pnp_core.methods.pnp import channels
from pnp_core.methods.pnp.backbones import Checkpoint, backbone_card, locate_checkpoint
from pnp_core.methods.pnp.backbones.known_names import listed, unknown_names
from pnp_core.methods.pnp.config import PnpConfig
from pnp_core.methods.pnp.layers import check_layer_head, check_salient

FOR_PHOTOGRAPHS = "For photographs take --preset photo, or the weights of a large model (`pnp-ovss backbones`)"


class PnpMethod(Method[PnpConfig, Checkpoint]):
    """See `pnp_core.methods.base`."""

    def pin(self, config: PnpConfig) -> Checkpoint:
        """Find the weights, and check layer and head against them.

        Raises:
            CheckpointError: the weights are missing or unfit.
            LayerRangeError: the model has no such layer or head, or its salience is zero.
        """
        checkpoint = locate_checkpoint(config.backbone)
        check_layer_head(config.layer, config.head, checkpoint.layers, checkpoint.heads)
        check_salient(config.layer, checkpoint.layers, config.kind)
        return checkpoint

    def load(self, config: PnpConfig, pinned: Checkpoint, captions: tuple[str, ...], device: str) -> LoadedMethod:
        """Load the backbone."""
        from pnp_core.methods.pnp.backbones.known import load_backbone
        from pnp_core.methods.pnp.loaded import LoadedPnp

        backbone = load_backbone(config.backbone, pinned, device)
        return LoadedPnp(config, backbone, captions, revision=f"contrastive:{pinned.revision}")

    def warm(self, config: PnpConfig, pinned: Checkpoint, device: str) -> None:
        """Load the backbone."""
        from pnp_core.methods.pnp.backbones.known import load_backbone

        load_backbone(config.backbone, pinned, device)

    def decide(self, config: PnpConfig, masks: MaskConfig, maps: ClassMaps, size: tuple[int, int]) -> Scores:
        """Sum over drop iterations, threshold, resize, background, blur."""
        return channels.decide(config, masks, maps, size)

    def askable(self, config: PnpConfig, captions: Mapping[int, str]) -> tuple[int, ...]:
        """All, but for names that the photo model has no token for.

        Raises:
            ClassNameError: it knows none of them.
        """
        if config.backbone.checkpoint != PHOTO:
            return tuple(captions)
        unknown = unknown_names(PHOTO, captions.values())
        lost = {name.name for name in unknown}
        labels = tuple(label for label, caption in captions.items() if caption not in lost)
        if not labels:
            raise ClassNameError(
                f"the photo model knows none of the class names: {listed(unknown)}; `pnp-ovss models photo` lists what "
                f"it knows, and large models know more (`pnp-ovss backbones`)"
            )
        return labels

    def remarks(self, config: PnpConfig, captions: Sequence[str]) -> list[str]:
        """What the bundled models do not know; a layer and head that nobody has measured."""
        checkpoint = config.backbone.checkpoint
        if not (unknown := unknown_names(checkpoint, captions)):
            return _untuned_layer_head(config)
        if checkpoint == TINY:
            return [
                f"the bundled tiny model knows only its {len(CLASS_NAMES)} drawn classes, not "
                f"{listed([replace(name, nearest=()) for name in unknown])}: its masks mean nothing. {FOR_PHOTOGRAPHS}"
            ]
        return [f"the {checkpoint} model does not know {listed(unknown)}: left out"]


def _untuned_layer_head(config: PnpConfig) -> list[str]:
    """A warning when layer and head are a default that nobody has measured."""
    card = backbone_card(config.backbone.name)
    if not card.guess or (config.layer, config.head) != (card.layer, card.head):
        return []
    return [
        f"layer {card.layer} and head {card.head} of {card.name} are a guess; `pnp-ovss tune` finds better ones, "
        f"and --config best.yaml uses them"
    ]


METHOD = PnpMethod()
