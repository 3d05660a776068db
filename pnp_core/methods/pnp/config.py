"""Configuration of PnP-OVSS: weights, captions, Salience DropOut."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pnp_core.bundled import TINY
from pnp_core.frozen import Config

LEAST_SIDE, MOST_SIDE = 16, 2048
"""Of what a picture is squashed to, in model pixels."""


Side = Annotated[int, Field(ge=LEAST_SIDE, le=MOST_SIDE)]


class BackboneConfig(Config):
    """Which vision-language model, which weights."""

    name: str = "blip"
    """Vision-language model: `albef`, `blip`, `bridgetower`, `mplug` or `photo` (see `pnp-ovss backbones`)."""
    checkpoint: str = TINY
    """Weights: `photo` or `tiny` (bundled), a local folder, or a hub id.

    `photo` is for photographs, `tiny` for drawn scenes; a hub id is such as `Salesforce/blip-itm-large-flickr`."""
    revision: str | None = None
    """Commit of a hub checkpoint; the newest when empty. The resolved one is in the fingerprint."""
    image_size: Side | tuple[Side, Side] = 96
    """Side of the square a picture is squashed to, or height and width; multiples of the patch size.

    In model pixels."""
    heads: int | None = Field(default=None, ge=1)
    """Cross-attention heads the checkpoint must have; a check against wrongly exported configs."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the image encoder: `float32`, `bfloat16`, `float16`.

    The text encoder and its gradient always run in float32."""

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width in model pixels.

        >>> BackboneConfig(image_size=96).sides, BackboneConfig(image_size=(64, 96)).sides
        ((96, 96), (64, 96))
        """
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)


class CaptionConfig(Config):
    """How class names become captions (paper section 3.1)."""

    template: str = "A picture of {}"
    """The caption; `{}` stands for the class name, or for all names separated by spaces."""
    mode: Literal["joint", "per_class"] = "joint"
    """`joint`: one caption with all candidate classes, as in the paper; `per_class`: one each."""
    overlong: Literal["chunk", "error"] = "chunk"
    """A joint caption over the text encoder's limit is split into several, or refused."""

    @model_validator(mode="after")
    def _one_slot(self) -> CaptionConfig:
        if self.template.count("{}") != 1:
            raise ValueError(f"caption template needs exactly one {{}}: {self.template!r}")
        return self


class DropoutConfig(Config):
    """Salience DropOut (paper section 3.3)."""

    iterations: int = Field(default=4, ge=1, le=32)
    """Forward passes K; 1 means no DropOut."""
    strategy: Literal["count", "fraction", "mass"] = "count"
    """What `amount` means: patches, share of the patches left, share of the salience left."""
    amount: float = Field(default=10, gt=0)
    """Patches (count) or share in (0, 1) (fraction, mass) dropped after each pass but the last."""

    @model_validator(mode="after")
    def _amount_fits_strategy(self) -> DropoutConfig:
        if self.strategy == "count" and self.amount != int(self.amount):
            raise ValueError(f"dropout amount {self.amount} must be a whole number of patches")
        if self.strategy != "count" and self.amount >= 1:
            raise ValueError(f"dropout amount {self.amount} must be a share below 1 for {self.strategy}")
        return self
