"""Configuration of the masks stage: scores to label map."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pnp_core.frozen import Config


class CrfConfig(Config):
    """Dense CRF (Kraehenbuehl and Koltun 2011), parameters as in the authors' code."""

    name: str = "dense"
    """`dense` (pydensecrf), `fast` (the same labels several times as fast), `torch` (the same as tensors, on a GPU
    where there is one) or `off` (softmax only)."""
    iterations: int = Field(default=10, ge=1)
    gaussian_sxy: float = Field(default=3, gt=0)
    """Position bandwidth of the smoothness term, image pixels."""
    gaussian_compat: float = Field(default=7, ge=0)
    bilateral_sxy: float = Field(default=50, gt=0)
    """Position bandwidth of the appearance term, image pixels."""
    bilateral_srgb: float = Field(default=5, gt=0)
    """Colour bandwidth of the appearance term, 0..255 units."""
    bilateral_compat: float = Field(default=10, ge=0)


class MaskConfig(Config):
    """The masks stage: salience to label map (ALGORITHM section 4)."""

    passes: int | None = Field(default=None, ge=1)
    """Use only the first so many drop iterations of the stored salience; all of them when empty. They are the same
    however many follow, so fewer need no new salience."""
    sum: Literal["plain", "first_twice"] = "plain"
    """How the drop iterations' maps add up; the authors' code counts the first twice."""
    threshold: float = Field(default=0.15, ge=0, lt=1)
    """On the min-max of each class map; salience below it is cut to 0."""
    ties: Literal["cut", "keep"] = "cut"
    """Salience exactly at the threshold: cut to 0 too, or kept as in the authors' code."""
    blur: float = Field(default=0.05, ge=0, le=1)
    """Gaussian sigma as a share of max(H, W); 0 is off."""
    background: Literal["auto", "always", "few", "never"] = "auto"
    """Background channel: always (object data), when fewer than 3 candidates (scene data), never.
    `auto` follows the dataset card."""
    crf: CrfConfig = CrfConfig()
    max_side: int = Field(default=2048, ge=64)
    """Longer pictures are refined at this size (blur and CRF take memory by pixels and classes); their
    masks are brought to the picture's own size by nearest neighbour."""
    confidence: bool = False
    """Also store the per-pixel probability of the winning class as a PNG, 0..255."""

    def facts(self) -> dict[str, Any]:
        """What masks depend on; `ties`, newer than the first masks, only where it is not what those were made with."""
        return self.model_dump(exclude={"ties"} if self.ties == "cut" else None)
