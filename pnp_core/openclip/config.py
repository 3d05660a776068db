"""Configuration of a CLIP model."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field

from pnp_core.frozen import NO_RESULT, Config

Template = Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]
Templates = Literal["imagenet"] | Annotated[tuple[Template, ...], Field(min_length=1)]
"""Captions with `{}` in the place of a query, or OpenAI's 80."""


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
        own = self.model.startswith(("local-dir:", "tiny"))
        weights = self.model if own else f"{self.model}:{self.pretrained}"
        return weights if self.prompts is None else f"{weights} with {PurePath(self.prompts).name}"


class ClipConfig(ClipWeights):
    """A CLIP model, and the caption that it is asked with."""

    template: str = "a photo of a {}"
    """The caption; `{}` stands for the class name."""
