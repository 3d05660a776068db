"""Configuration of the masks stage: scores to label map."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from pnp_core.frozen import NO_SCORE, Config, Newer, formerly

Dilation = Annotated[int, Field(ge=1, le=1024)]
_OF_PAMR = ("steps", "dilations")


class CrfConfig(Config):
    """Dense CRF (Kraehenbuehl and Koltun 2011), parameters as in the authors' code; or what is in its place."""

    name: str = "fast"
    """`fast` (compiled, by the CPU), `torch` (as tensors, on a GPU where there is one), `dense` (pydensecrf, the same
    labels several times slower), `pamr` (no CRF: each pixel takes on what neighbours of its colour have) or `off`
    (softmax only)."""
    iterations: int = Field(default=10, ge=1)
    """Steps of mean-field inference."""
    gaussian_sxy: float = Field(default=3, gt=0)
    """Position bandwidth of the smoothness term, image pixels."""
    gaussian_compat: float = Field(default=7, ge=0)
    """Weight of the smoothness term."""
    bilateral_sxy: float = Field(default=50, gt=0)
    """Position bandwidth of the appearance term, image pixels."""
    bilateral_srgb: float = Field(default=5, gt=0)
    """Colour bandwidth of the appearance term, 0..255 units."""
    bilateral_compat: float = Field(default=10, ge=0)
    """Weight of the appearance term."""
    steps: Annotated[int, Newer(10)] = Field(default=10, ge=1, le=1000)
    """Of `pamr`: how often pixels take on the mean of their neighbours."""
    dilations: Annotated[tuple[Dilation, ...], Newer((8, 16))] = Field(default=(8, 16), min_length=1, max_length=16)
    """Of `pamr`: how far the neighbours are, eight at each distance, in image pixels."""
    guide: Annotated[Literal["image", "wrapped"], Newer("image")] = "image"
    """Of a CRF: the colours that it goes by. `wrapped` is what the code of CaR has: less the mean colour of ImageNet,
    and what is below 0 begins at 255 again."""

    def setting(self) -> dict[str, Any]:
        """What can change a score: where there is no CRF, no parameter of it."""
        own = {"off": (), "pamr": _OF_PAMR}.get(self.name)
        values = super().setting()
        return {n: v for n, v in values.items() if n == "name" or (n not in _OF_PAMR if own is None else n in own)}


FORMER_OF_MASKS = ("passes", "sum")
"""Settings that stood in the part of the masks stage when there was one method."""


class MaskConfig(Config):
    """The masks stage: scores to label map (ALGORITHM section 4)."""

    model_config = ConfigDict(json_schema_extra=formerly(FORMER_OF_MASKS))

    threshold: float = Field(default=0.15, ge=0, lt=1)
    """On the min-max of each class map; salience below it is cut to 0."""
    ties: Annotated[Literal["cut", "keep"], Newer("cut")] = "cut"
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
    confidence: Annotated[bool, NO_SCORE] = False
    """Also keep each pixel's confidence, which `export` can cut by.

    The probability of the winning class, as a PNG, 0..255."""
