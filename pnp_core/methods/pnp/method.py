"""PnP-OVSS as a method: weights found and loaded, images looked at, maps decided on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from PIL.Image import Resampling

from pnp_core.bundled import PHOTO, TINY
from pnp_core.data import ClassMaps
from pnp_core.devices import moved
from pnp_core.errors import ClassNameError
from pnp_core.inputs.scenes.shapes import CLASS_NAMES
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.label_map import Scores
from pnp_core.methods.base import LoadedMethod, Method, Seen
from pnp_core.methods.pnp import channels
from pnp_core.methods.pnp.backbones import Backbone, Checkpoint, backbone_card, load_backbone, locate_checkpoint
from pnp_core.methods.pnp.backbones.base import PIXEL_MEAN, PIXEL_STD, Contrastive
from pnp_core.methods.pnp.backbones.known_names import listed, unknown_names
from pnp_core.methods.pnp.config import PnpConfig
from pnp_core.methods.pnp.dropout import salience_dropout
from pnp_core.methods.pnp.matching import match_captions
from pnp_core.methods.pnp.prompts import (
    PromptBatch,
    Prompts,
    build_prompts,
    check_captions,
    single_captions,
    stack_prompts,
)
from pnp_core.methods.pnp.salience import check_layer_head, check_salient
from pnp_core.openclip.text_cache import cached_texts

FOR_PHOTOGRAPHS = "For photographs take --preset photo, or the weights of a large model (`pnp-ovss backbones`)"
_MEAN, _STD = np.array(PIXEL_MEAN, dtype=np.float32), np.array(PIXEL_STD, dtype=np.float32)
_NORMALISED = (np.arange(256, dtype=np.float32)[:, None] / 255 - _MEAN) / _STD
"""What each value of a channel becomes (256, 3): looking it up takes a quarter of the time of computing it."""


def model_pixels(image: UInt8[np.ndarray, "H W 3"], sides: tuple[int, int]) -> Float[torch.Tensor, "3 h w"]:
    """Squash an image to normalised model pixels of some sides (h, w), bicubic."""
    height, width = sides
    small = np.asarray(Image.fromarray(image).resize((width, height), Resampling.BICUBIC))
    pixels = np.empty((3, height, width), dtype=np.float32)
    for channel, plane in enumerate(pixels):
        np.take(_NORMALISED[:, channel], small[:, :, channel], out=plane, mode="clip")
    return torch.from_numpy(pixels)


@dataclass(frozen=True)
class Encoded:
    """A batch of images on the device: normalised pixels (B, 3, h, w), and what the backbone makes of them."""

    pixels: Float[torch.Tensor, "B 3 h w"]
    tokens: Float[torch.Tensor, "B ... D"]


Passes = Callable[[Encoded, PromptBatch], tuple[torch.Tensor, torch.Tensor]]
"""Images and their prompts to maps (B, K, C, P) and match probabilities (B, C)."""


class LoadedPnp(LoadedMethod):
    """A backbone, and the captions that it is asked about.

    Args:
        captions: the classes as captions say them, from label 1.
        passes: what is looked at; one map per drop iteration, of the configured layer and head, when None.
        kept: how many maps `passes` makes.
        revision: names the weights, to keep what is made of the captions; nothing is kept when empty.
    """

    def __init__(
        self,
        config: PnpConfig,
        backbone: Backbone,
        captions: tuple[str, ...],
        passes: Passes | None = None,
        kept: int | None = None,
        revision: str = "",
    ) -> None:
        self._config, self.backbone, self._captions = config, backbone, captions
        self._passes = passes or self._drop_iterations
        self._kept, self._revision = kept or config.dropout.iterations, revision
        self._prompts_of = lru_cache(maxsize=1024)(self._build_prompts)
        self._single_captions_of = lru_cache(maxsize=1)(self._build_single_captions)
        self._contrastive_texts_of = lru_cache(maxsize=1)(self._encode_contrastive_texts)
        self.overflow = f"the model's numbers overflow (its image encoder runs in {config.backbone.dtype})"

    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> torch.Tensor:
        """Model pixels."""
        return model_pixels(image, self._config.backbone.sides)

    def encode(self, prepared: Sequence[torch.Tensor]) -> Encoded:
        """Image tokens."""
        pixels = moved(torch.stack(list(prepared)), self.backbone.device)
        return Encoded(pixels, self.backbone.encode_image(pixels))

    def match(self, batch: Encoded, labels: tuple[int, ...]) -> Float[np.ndarray, "B C"]:
        """Match probabilities, one caption per class, no gradient."""
        number = len(batch.tokens)
        ids, mask = (t.expand(number, -1, -1) for t in self._single_captions_of(labels))
        return match_captions(self.backbone, batch.tokens, ids, mask).cpu().numpy()

    def match_each(self, batch: Encoded, labels: Sequence[tuple[int, ...]]) -> list[Float[np.ndarray, " C"]]:
        """Match probabilities of each image's own classes; those of fewer classes repeat their first caption."""
        most = max(map(len, labels))
        padded = [own + own[:1] * (most - len(own)) for own in labels]
        asked = tuple(sorted(set().union(*labels)))
        ids, mask = self._build_single_captions(asked)
        rows = torch.from_numpy(np.searchsorted(asked, np.array(padded)))
        found = match_captions(self.backbone, batch.tokens, ids[rows], mask[rows]).cpu().numpy()
        return [row[: len(own)] for row, own in zip(found, labels, strict=True)]

    def similarity(self, batch: Encoded, labels: tuple[int, ...]) -> Float[np.ndarray, "B C"]:
        """Cosines of the backbone's contrastive head."""
        if not isinstance(self.backbone, Contrastive):
            return super().similarity(batch, labels)
        return (self.backbone.image_features(batch.tokens) @ self._contrastive_texts_of(labels).T).cpu().numpy()

    def look(self, batch: Encoded, classes: Mapping[int, tuple[int, ...]]) -> dict[int, Seen]:
        """Salience of each class, in as many maps as there are passes."""
        nothing = np.zeros((self._kept, 0, *self.backbone.grid), dtype=np.float32)
        seen = {place: Seen(nothing, np.zeros(0, dtype=np.float32)) for place in classes}
        asked = [place for place, labels in classes.items() if labels]
        if not asked:
            return seen
        prompts = stack_prompts([self._prompts_of(classes[place]) for place in asked]).to(self.backbone.device)
        found, matches = self._passes(Encoded(batch.pixels[asked], batch.tokens[asked]), prompts)
        maps, match = found.unflatten(-1, self.backbone.grid).cpu().numpy(), matches.cpu().numpy()
        for i, place in enumerate(asked):
            number = len(classes[place])
            seen[place] = Seen(maps[i, :, :number], match[i, :number])
        return seen

    def check(self, labels: tuple[int, ...]) -> None:
        """Make the captions."""
        check_captions([self._captions[label - 1] for label in labels], self._config.caption, self.backbone)

    def _drop_iterations(self, batch: Encoded, prompts: PromptBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """One map per drop iteration, of the configured layer and head."""
        config = self._config
        layer, head, kind = config.layer, config.head, config.kind
        found = salience_dropout(self.backbone, batch.pixels, prompts, config.dropout, layer, head, kind, batch.tokens)
        return found.maps, found.itm

    def _build_prompts(self, labels: tuple[int, ...]) -> Prompts:
        return build_prompts([self._captions[label - 1] for label in labels], self._config.caption, self.backbone)

    def _build_single_captions(self, labels: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        return single_captions([self._captions[label - 1] for label in labels], self._config.caption, self.backbone)

    def _encode_contrastive_texts(self, labels: tuple[int, ...]) -> Float[torch.Tensor, "C D"]:
        """Features of length 1 of a caption for each class."""
        assert isinstance(self.backbone, Contrastive)
        template = self._config.caption.template
        texts = [template.replace("{}", self._captions[label - 1]) for label in labels]
        encode = self.backbone.text_features
        features = cached_texts(encode, self._revision, texts) if self._revision else encode(texts)
        return features.to(self.backbone.device)


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

    def load(self, config: PnpConfig, pinned: Checkpoint, captions: tuple[str, ...], device: str) -> LoadedPnp:
        """Load the backbone."""
        backbone = load_backbone(config.backbone, pinned, device)
        return LoadedPnp(config, backbone, captions, revision=f"contrastive:{pinned.revision}")

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
