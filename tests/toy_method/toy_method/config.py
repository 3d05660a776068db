"""Configuration of the toy method."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pnp_core.methods.base import Description, MethodConfig, Value


class ToyConfig(MethodConfig):
    """What differs from the image's border is the class, whichever it is."""

    place: ClassVar[str] = "toy_method.method:METHOD"

    name: Literal["toy"] = "toy"  # pyright: ignore[reportIncompatibleVariableOverride]
    """The method."""
    grid: int = Field(default=24, ge=2)
    """Cells a side."""

    @classmethod
    def space(cls) -> dict[str, tuple[Value, ...]]:
        """The threshold alone: nothing is blurred."""
        return {"masks.threshold": (0.1, 0.3, 0.5)}

    def describe(self) -> Description:
        """In words."""
        return Description("none", "toy:none", f"toy, {self.grid} cells", (f"{self.grid} cells",))
