"""Configuration of PnP-OVSS: weights, captions, layer and head, Salience DropOut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pnp_core.bundled import TINY
from pnp_core.frozen import NO_RESULT, NO_SCORE, OF_MASKS, Config, Newer
from pnp_core.methods.base import PNP, Description, MethodConfig, Pinned
from pnp_core.methods.pnp.presets import starting_point

LEAST_SIDE, MOST_SIDE = 16, 2048
"""Of what a picture is squashed to, in model pixels."""


Side = Annotated[int, Field(ge=LEAST_SIDE, le=MOST_SIDE)]


class BackboneConfig(Config):
    """Which vision-language model, which weights."""

    name: str = "blip"
    """Vision-language model: `albef`, `blip`, `bridgetower`, `mplug` or `photo` (see `pnp-ovss backbones`)."""
    checkpoint: Annotated[str, NO_RESULT] = TINY
    """Weights: `photo` or `tiny` (bundled), a local folder, or a hub id.

    `photo` is for photographs, `tiny` for drawn scenes; a hub id is such as `Salesforce/blip-itm-large-flickr`."""
    revision: Annotated[str | None, NO_RESULT] = None
    """Commit of a hub checkpoint; the newest when empty. The resolved one is in the fingerprint."""
    image_size: Side | tuple[Side, Side] = 96
    """Side of the square a picture is squashed to, or height and width; multiples of the patch size.

    In model pixels."""
    heads: Annotated[int | None, NO_RESULT, NO_SCORE] = Field(default=None, ge=1)
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


class PnpConfig(MethodConfig):
    """PnP-OVSS: cross-attention x gradient of the match score, and Salience DropOut (arXiv 2311.17095)."""

    place: ClassVar[str] = "pnp_core.methods.pnp.method:METHOD"
    matches: ClassVar[bool] = True

    # What is declared here is not seen by type checkers as narrower, since it is frozen.
    name: Annotated[Literal["pnp-ovss"], Newer(PNP)] = PNP  # pyright: ignore[reportIncompatibleVariableOverride]
    """The method."""
    backbone: BackboneConfig = BackboneConfig()
    caption: CaptionConfig = CaptionConfig()
    dropout: DropoutConfig = DropoutConfig()
    layer: int = Field(default=0, ge=0)
    """Cross-attention layer, counted from 0."""
    head: int = Field(default=0, ge=0)
    """Head of that layer, counted from 0."""
    kind: Literal["gradcam", "attention"] = "gradcam"
    """Attention x ReLU of the gradient of the match logit, or the attention alone (ablation)."""
    passes: Annotated[int | None, OF_MASKS] = Field(default=None, ge=1)
    """Use only the first so many drop iterations of the stored salience; all of them when empty. They are the same
    however many follow, so fewer need no new salience."""
    sum: Annotated[Literal["plain", "first_twice"], OF_MASKS] = "plain"
    """How the drop iterations' maps add up; the authors' code counts the first twice."""

    @model_validator(mode="after")
    def _no_more_passes_than_there_are(self) -> PnpConfig:
        if (self.passes or 0) > self.dropout.iterations:
            raise ValueError(
                f"passes {self.passes} is more than the {self.dropout.iterations} drop iterations there are"
            )
        return self

    @classmethod
    def defaults(cls, values: Mapping[str, Any], bundled: str) -> dict[str, Any]:
        """The preset that was asked for, or that of the weights, or that of the bundled model."""
        return starting_point(values, bundled)

    @classmethod
    def of_weights(cls, weights: str) -> dict[str, Any]:
        """A checkpoint: bundled, a folder or a hub id."""
        return {"backbone": {"checkpoint": weights}}

    @property
    def all_passes(self) -> int:
        """Drop iterations that masks are made of."""
        return self.passes or self.dropout.iterations

    @property
    def size(self) -> str:
        """The resolution, for people.

        >>> PnpConfig().size
        '96'
        """
        height, width = self.backbone.sides
        return str(height) if height == width else f"{height} x {width}"

    @property
    def dropped(self) -> str:
        """What is dropped after each pass, for people.

        >>> PnpConfig().dropped
        '10 patches'
        """
        dropout = self.dropout
        if dropout.strategy == "count":
            return f"{dropout.amount:g} patches"
        return f"{100 * dropout.amount:g} % of the {'patches' if dropout.strategy == 'fraction' else 'salience'} left"

    def describe(self) -> Description:
        """In words."""
        backbone, passes = self.backbone, self.all_passes
        settings = [
            f"{self.size} px",
            f"{self.caption.mode} captions",
            "attention alone" if self.kind == "attention" else None,
            f"layer {self.layer}",
            f"head {self.head}",
            f"{passes} passes, dropped {self.dropped}" if passes > 1 else "1 pass",
            "first pass twice" if self.sum == "first_twice" else None,
        ]
        return Description(
            weights=backbone.checkpoint,
            model=f"{backbone.name}:{backbone.checkpoint}",
            row=f"PnP-OVSS {backbone.name} {backbone.checkpoint.rstrip('/').rsplit('/', 1)[-1]}, {self.size} px",
            settings=tuple(text for text in settings if text),
        )

    def setting(self) -> dict[str, Any]:
        """What can change a score; the first passes are the same however many follow."""
        values = super().setting()
        values["passes"] = self.all_passes
        del values["dropout"]["iterations"]
        if values["passes"] == 1:
            values["dropout"] = None
        return values

    def map_facts(self) -> dict[str, Any]:
        """What names its maps in fingerprints: beside the stage's own settings, as before there were other methods."""
        return self._facts_of(masks=False)

    def mask_facts(self) -> dict[str, Any]:
        """What names its masks in fingerprints, in the same way."""
        return self._facts_of(masks=True)

    def with_revision(self, pinned: Pinned) -> PnpConfig:
        """A hub snapshot is named by its commit: the newest one may be another tomorrow."""
        if not getattr(pinned, "from_hub", False):
            return self
        backbone = self.backbone.model_copy(update={"revision": pinned.revision})
        return self.model_copy(update={"backbone": backbone})
