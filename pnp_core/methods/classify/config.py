"""Configuration of classify: where proposals are from, and who names them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pnp_core.bundled import SCENES, TINY
from pnp_core.errors import UsageError
from pnp_core.frozen import NO_RESULT, NO_SCORE
from pnp_core.methods.base import Description, MethodConfig, Value
from pnp_core.openclip.config import ClipWeights, Templates, weights_named

FOR_SCENES = {"clip": {"model": TINY}, "templates": ["a picture of {}"], "expand": 2.5}
"""The bundled CLIP for drawn scenes, the caption that it was trained with, and how large objects were there."""


class ClassifyConfig(MethodConfig):
    """Proposals of another run or of a folder of masks, each cut out and named by a CLIP (as OVSeg, arXiv 2210.04150).

    Of the masks' settings `threshold` is the probability that a proposal's class must have; below it is background.
    """

    place: ClassVar[str] = "pnp_core.methods.classify.method:METHOD"

    name: Literal["classify"] = "classify"  # pyright: ignore[reportIncompatibleVariableOverride]
    """The method."""
    proposals: Annotated[str, NO_RESULT, NO_SCORE] = ""
    """Where proposals are from, a path or any fsspec URL: a finished run, or a folder with `KEY/*.png`.

    Of a run the connected pieces of each class of its masks; in a folder each PNG is one, where it is not 0."""
    clip: ClipWeights = ClipWeights()
    templates: Templates = "imagenet"
    """Captions with `{}` in the place of a class, or `imagenet`: OpenAI's 80."""
    expand: float = Field(default=1, ge=1, le=10)
    """Side of the square that is cut out, in longer sides of the proposal's box."""
    min_area: float = Field(default=0.001, ge=0, lt=1)
    """Share of the picture that a proposal must cover."""

    @model_validator(mode="after")
    def _has_proposals(self) -> ClassifyConfig:
        if not self.proposals:
            raise ValueError("classify needs proposals: -p method.proposals=RUN, a finished run or a folder of masks")
        return self

    @classmethod
    def defaults(cls, values: Mapping[str, Any], bundled: str) -> dict[str, Any]:
        """The bundled CLIP for the drawn scenes. No refinement: proposals have their borders.

        Raises:
            UsageError: a preset, or a blur.
        """
        super().defaults(values, bundled)
        given = values.get("masks")
        if isinstance(given, Mapping) and given.get("blur"):
            raise UsageError("classify does not blur: a proposal's score is the same everywhere; leave out masks.blur")
        scenes = "classes" not in values and values.get("dataset", SCENES) == SCENES
        return {
            "method": FOR_SCENES if scenes else {},
            "masks": {"threshold": 0, "blur": 0, "crf": {"name": "off"}},
        }

    @classmethod
    def of_weights(cls, weights: str) -> dict[str, Any]:
        """A CLIP."""
        return {"clip": weights_named(weights)}

    @classmethod
    def space(cls) -> dict[str, tuple[Value, ...]]:
        """The score that names a proposal at least; there is no blur."""
        return {"masks.threshold": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)}

    def describe(self) -> Description:
        """In words."""
        clip, source = self.clip.title, PurePosixPath(self.proposals.split("://")[-1]).name
        settings = [f"proposals of {source}", f"crops {self.expand:g} x" if self.expand != 1 else None]
        return Description(
            weights=clip,
            model=f"{self.name}:{clip}",
            row=f"{self.name} {clip}, proposals of {source}",
            settings=tuple(text for text in settings if text),
        )

    def setting(self) -> dict[str, Any]:
        """What can change a score."""
        return super().setting() | {"clip": self.clip.model_dump(mode="json")}
