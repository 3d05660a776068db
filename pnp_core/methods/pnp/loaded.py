"""PnP-OVSS with its model loaded: images looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from PIL.Image import Resampling

from pnp_core.devices import moved
from pnp_core.methods.base import LoadedMethod, Seen
from pnp_core.methods.pnp.backbones.base import PIXEL_MEAN, PIXEL_STD, Backbone, Contrastive
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
from pnp_core.openclip.text_cache import cached_texts

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
