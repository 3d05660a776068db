"""Configuration of which classes are asked about."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pnp_core.frozen import NO_RESULT, Config, Newer
from pnp_core.openclip.config import ClipConfig, View


class CandidatesConfig(Config):
    """Which classes go into a picture's caption (ALGORITHM section 5)."""

    source: str = "labels"
    """Which classes go into a picture's caption: `labels`, `vocabulary`, `file`, `itm`, `clip` (docs/candidates.md).

    `labels` (image-level labels of the dataset), `vocabulary` (every class), `file` (a table or answers
    per picture), `itm` (the backbone's own match score), `clip` (zero-shot CLIP)."""
    file: Annotated[str | None, NO_RESULT] = None
    """JSON, JSON Lines, CSV or Parquet with classes per picture, a path or any fsspec URL.

    For the source `file`."""
    min_score: float | None = Field(default=None, ge=0, lt=1)
    """Candidates must score above this, 0..1; each source has a default of its own."""
    top_k: int | None = Field(default=None, ge=1)
    """At most so many candidates per picture, the best ones."""
    fallback: Literal["best", "first", "background", "none"] = "best"
    """When no class scores enough: the `best` one, the `first` of the vocabulary (authors), a mask of `background`
    alone, or `none`: the picture is quarantined."""
    clip: ClipConfig = ClipConfig()
    view: Annotated[View, Newer("centre")] = "whole"
    """What CLIP sees of a picture that is no square: the `whole` of it, squashed, or its `centre` alone."""
    ranker: Annotated[Literal["auto", "own", "clip", "none"], NO_RESULT] = "auto"
    """What ranks all classes where there are more than `rerank`, for the sources `itm` and `vocabulary`: the model's
    `own` contrastive head, `clip`, or `none`: each class is looked at. `auto`: of more than 254 classes, by its own
    head where it has one."""
    rerank: Annotated[int, NO_RESULT] = Field(default=128, ge=1)
    """So many classes, the best of those that are ranked, are looked at."""

    @model_validator(mode="after")
    def _file_fits_source(self) -> CandidatesConfig:
        if (self.source == "file") != (self.file is not None):
            raise ValueError("candidates from a file need both source 'file' and the file (--candidates-file FILE)")
        return self

    def facts(self) -> dict[str, Any]:
        """What names a result: of CLIP only what is in use."""
        facts = super().facts()
        unused = () if self.source == "clip" else ("clip", "view")
        return {name: fact for name, fact in facts.items() if name not in unused}
