"""Configuration of a CLIP model, of the texts it is asked with, and of the windows it sees through."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from pnp_core.frozen import NO_RESULT, Config

Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], Field(min_length=1)]
Template = Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]
Templates = Literal["imagenet"] | Annotated[tuple[Template, ...], Field(min_length=1)]
"""Captions with `{}` in the place of a query, or OpenAI's 80."""
View = Literal["whole", "centre"]
"""What is seen of a picture that is no square: all of it, squashed to one, or the square at its centre."""
LOCAL_DIR = "local-dir:"
"""What the name of a model begins with that is a folder."""


def _pairs(value: Any) -> Any:
    """A mapping in a form that can be hashed; one name needs no list."""
    if not isinstance(value, Mapping):
        return value
    return tuple((name, (names,) if isinstance(names, str) else names) for name, names in value.items())


Queries = Annotated[
    tuple[tuple[Name, Names], ...],
    BeforeValidator(_pairs, json_schema_input_type=dict[str, list[str] | str]),
    PlainSerializer(lambda pairs: {name: list(names) for name, names in pairs}, return_type=dict[str, list[str]]),
]


def named_twice(queries: Queries) -> list[str]:
    """Classes, in lower case, that there are queries for more than once."""
    names = [name.lower() for name, _ in queries]
    return sorted({name for name in names if names.count(name) > 1})


class Windows(Config):
    """Windows that a picture is looked at through."""

    side: int = Field(default=224, ge=16)
    """In model pixels."""
    stride: int = Field(default=112, ge=1)
    """From one window to the next, at most `side`."""

    @model_validator(mode="after")
    def _cover(self) -> Windows:
        if self.stride > self.side:
            raise ValueError(f"windows of {self.side} pixels that are {self.stride} apart leave pixels out")
        return self


class ClipWeights(Config):
    """A CLIP model of open_clip."""

    model: Annotated[str, NO_RESULT] = "ViT-B-16"
    """CLIP: `tiny` or `tiny-vit` (bundled), a name of open_clip, or `local-dir:FOLDER`.

    A folder has open_clip_config.json and weights."""
    pretrained: Annotated[str | None, NO_RESULT] = "openai"
    """Pretrained tag or weights file of that CLIP; ignored for `local-dir:`."""
    prompts: Annotated[str | None, NO_RESULT] = None
    """Prompts that were learned for that CLIP, as OpenDAS has them: a safetensors file (docs/methods.md)."""

    @property
    def title(self) -> str:
        """In words: model, weights, prompts."""
        weights = self.model if self.model.startswith((LOCAL_DIR, "tiny")) else f"{self.model}:{self.pretrained}"
        return weights if self.prompts is None else f"{weights} with {PurePath(self.prompts).name}"


def weights_named(weights: str) -> dict[str, str]:
    """The settings of a CLIP in the form of `ClipWeights.weights`: model, or model and tag.

    >>> weights_named("ViT-L-14:openai"), weights_named("local-dir:/a")
    ({'model': 'ViT-L-14', 'pretrained': 'openai'}, {'model': 'local-dir:/a'})
    """
    model, colon, pretrained = weights.partition(":")
    if weights.startswith(LOCAL_DIR) or not colon:
        return {"model": weights}
    return {"model": model, "pretrained": pretrained}


class ClipConfig(ClipWeights):
    """A CLIP model, and the caption that it is asked with."""

    template: str = "a photo of a {}"
    """The caption; `{}` stands for the class name."""
