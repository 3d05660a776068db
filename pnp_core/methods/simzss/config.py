"""Configuration of SimZSS: weights, texts, windows. Light: no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pnp_core.frozen import NO_RESULT, OF_MASKS
from pnp_core.methods.base import Description, MethodConfig, Value
from pnp_core.methods.cards import chosen_for
from pnp_core.openclip.config import Name, Queries, Templates, Windows, named_twice

PATCH = 14
"""Side of DINOv2's patches in model pixels."""


class SimzssConfig(MethodConfig):
    """SimZSS: patches of DINOv2 held against texts (arXiv 2406.16085), by a protocol of this project.

    Its authors published no inference for segmentation. Short side, windows, stride and templates are those that papers
    after TCL use; `scale` and `masks.threshold`, the probability below which a pixel is background, are our choice.
    """

    place: ClassVar[str] = "pnp_core.methods.simzss.method:METHOD"

    name: Literal["simzss"] = "simzss"  # pyright: ignore[reportIncompatibleVariableOverride]
    """The method."""
    checkpoint: Annotated[str | None, NO_RESULT] = None
    """Folder that `pnp-ovss convert-weights FILE --method simzss --out FOLDER` made of the authors' file."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the image encoder: `float32`, `bfloat16`, `float16`."""
    templates: Templates = "imagenet"
    """Captions with `{}` in the place of a query, or `imagenet`: OpenAI's 80."""
    queries: Queries = ()
    """Names that a class is asked by, by the class as captions say it; its own name where none are given.

    The most probable one counts: `{person: [person, person in shirt]}`."""
    background: tuple[Name, ...] = ()
    """Names whose pixels are background; with none it is the threshold alone that makes background."""
    short_side: int = Field(default=448, ge=PATCH, le=4096, multiple_of=PATCH)
    """What a picture's shorter side is brought to, in model pixels; a multiple of 14."""
    long_side: int = Field(default=2048, ge=PATCH, le=8192)
    """What its longer side may be at most, to about a patch."""
    window: Windows | None = Windows(side=448, stride=224)
    """Windows that are looked at one by one, their side a multiple of 14; the whole picture at once when empty."""
    scale: Annotated[float, OF_MASKS] = Field(default=40, gt=0)
    """Of the cosines before the softmax over queries."""

    @classmethod
    def of_weights(cls, weights: str) -> dict[str, Any]:
        """A checkpoint folder."""
        return {"checkpoint": weights}

    @model_validator(mode="after")
    def _fits_together(self) -> SimzssConfig:
        if twice := named_twice(self.queries):
            raise ValueError(f"queries are given twice for {', '.join(twice)}")
        if self.window and self.window.side % PATCH:
            raise ValueError(f"windows of {self.window.side} pixels are no whole patches of {PATCH}")
        if max(self.short_side, self.window.side if self.window else 0) > self.long_side:
            raise ValueError(f"short_side and windows can be no larger than the picture may be ({self.long_side})")
        return self

    @classmethod
    def defaults(cls, values: Mapping[str, Any], bundled: str) -> dict[str, Any]:
        """The threshold for the card. Nothing refines: the protocol has neither PAMR nor CRF."""
        super().defaults(values, bundled)
        return {"masks": {"threshold": chosen_for(__file__, values)["threshold"], "blur": 0, "crf": {"name": "off"}}}

    @classmethod
    def space(cls) -> dict[str, tuple[Value, ...]]:
        """The probability below which a pixel is background, and the blur of the cosines."""
        return super().space() | {"masks.threshold": (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)}

    def describe(self) -> Description:
        """In words."""
        weights = self.checkpoint or "no weights"
        through = f"windows {self.window.side}/{self.window.stride}" if self.window else "whole pictures"
        return Description(
            weights=weights,
            model=f"simzss:{weights}",
            row=f"SimZSS {weights.rstrip('/').rsplit('/', 1)[-1]}, {self.short_side} px",
            settings=(f"{self.short_side} px", through, "protocol of this project"),
        )
