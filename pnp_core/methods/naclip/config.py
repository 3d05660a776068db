"""Configuration of NACLIP: weights, texts, last block, windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pnp_core.frozen import OF_MASKS
from pnp_core.methods.base import Description, MethodConfig, Value
from pnp_core.methods.cards import chosen_for, read_settings
from pnp_core.openclip.config import ClipWeights, Name, Queries, Templates, Windows, named_twice, weights_named


class NaclipConfig(MethodConfig):
    """NACLIP: CLIP whose patches attend to their neighbours (arXiv 2404.08181), and near variants.

    Of the masks' settings `threshold` is its `prob_thd`: pixels whose best probability is below it are background.
    """

    place: ClassVar[str] = "pnp_core.methods.naclip.method:METHOD"

    name: Literal["naclip"] = "naclip"  # pyright: ignore[reportIncompatibleVariableOverride]
    """The method."""
    clip: ClipWeights = ClipWeights()
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the image encoder: `float32`, `bfloat16`, `float16`."""
    templates: Templates = "imagenet"
    """Captions with `{}` in the place of a query, or `imagenet`: OpenAI's 80."""
    queries: Queries = ()
    """Names that a class is asked by, by the class as captions say it; its own name where none are given.

    The most probable one counts: `{person: [person, person in shirt]}`."""
    background: tuple[Name, ...] = ()
    """Names whose pixels are background."""
    attention: Literal["naclip", "kk", "nonly", "csa", "qq", "vanilla"] = "naclip"
    """Of the last block: keys with keys and the neighbourhood (`naclip`), without it (`kk`), it alone (`nonly`),
    SCLIP's (`csa`), ClearCLIP's (`qq`), as trained (`vanilla`)."""
    architecture: Literal["reduced", "vanilla"] = "reduced"
    """The last block without residual connection and MLP, or with."""
    sigma: float = Field(default=5, gt=0)
    """Of the Gaussian neighbourhood, in patches."""
    short_side: int = Field(default=336, ge=16, le=4096)
    """What a picture's shorter side is brought to, in model pixels."""
    long_side: int = Field(default=2048, ge=16, le=8192)
    """What its longer side may be at most."""
    window: Windows | None = None
    """Windows that are looked at one by one; the whole picture at once when empty."""
    scale: Annotated[float, OF_MASKS] = Field(default=40, gt=0)
    """Of the cosines before the softmax over queries."""

    @model_validator(mode="after")
    def _fits_together(self) -> NaclipConfig:
        if self.attention == "csa" and self.architecture == "reduced":
            raise ValueError("attention csa is defined with architecture vanilla alone (SCLIP)")
        if twice := named_twice(self.queries):
            raise ValueError(f"queries are given twice for {', '.join(twice)}")
        if self.window and self.window.side > self.long_side:
            raise ValueError(f"windows of {self.window.side} pixels are larger than the picture may be (long_side)")
        return self

    @classmethod
    def defaults(cls, values: Mapping[str, Any], bundled: str) -> dict[str, Any]:
        """What the authors run on a card, or plain ones; the bundled CLIP for the drawn scenes. PAMR refines."""
        super().defaults(values, bundled)
        method = dict(chosen_for(__file__, values))
        threshold = method.pop("threshold")
        masks = {"threshold": threshold, "blur": 0, "crf": {"name": "pamr"}}
        return {"method": method, "masks": masks}

    @classmethod
    def of_weights(cls, weights: str) -> dict[str, Any]:
        """A CLIP."""
        return {"clip": weights_named(weights)}

    @classmethod
    def space(cls) -> dict[str, tuple[Value, ...]]:
        """The paper's `prob_thd`, a probability, which may be left out, and the blur of the cosines."""
        return super().space() | {"masks.threshold": (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)}

    @property
    def plain(self) -> bool:
        """Whether nobody has chosen names for these classes."""
        return not self.queries and list(self.background) == read_settings(__file__)["plain"]["background"]

    def describe(self) -> Description:
        """In words."""
        clip = self.clip.title
        through = f"windows {self.window.side}/{self.window.stride}" if self.window else "whole pictures"
        settings = [
            f"{self.short_side} px",
            through,
            None if self.attention == "naclip" else f"attention {self.attention}",
            None if self.architecture == "reduced" else f"last block {self.architecture}",
            f"sigma {self.sigma:g}" if self.attention in ("naclip", "nonly") else None,
        ]
        return Description(
            weights=clip,
            model=f"naclip:{clip}",
            row=f"NACLIP {clip}, {self.short_side} px",
            settings=tuple(text for text in settings if text),
        )

    def setting(self) -> dict[str, Any]:
        """What can change a score."""
        return super().setting() | {"clip": self.clip.model_dump(mode="json")}
