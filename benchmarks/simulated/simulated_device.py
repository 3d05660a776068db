"""A method whose model is a sleep: what a pipeline is like beside a device that takes so long for a picture.

Images are decoded and resized as for PnP-OVSS; maps are one blob for every class.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from pnp_core.data import ClassMaps
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.grids import resize_matrix
from pnp_core.masks.label_map import Scores
from pnp_core.methods.base import Description, LoadedMethod, Method, MethodConfig, Pinned, Seen

SIDE, GRID, PASSES = 336, 21, 4
_TO_CENTRE = np.linspace(-1, 1, GRID, dtype=np.float32) ** 2
BLOB = np.exp(-2 * (_TO_CENTRE[:, None] + _TO_CENTRE)).astype(np.float32)


class SimulatedConfig(MethodConfig):
    """A model that is a sleep."""

    place: ClassVar[str] = "simulated_device:METHOD"

    name: Literal["simulated-device"] = "simulated-device"  # pyright: ignore[reportIncompatibleVariableOverride]
    """The method."""
    seconds: float = Field(default=0.0045, ge=0)
    """Of a picture."""

    def describe(self) -> Description:
        """In words."""
        return Description("none", "simulated:none", "simulated device")


class LoadedDevice(LoadedMethod):
    """Sleeps; the interpreter is free meanwhile."""

    slept: ClassVar[float] = 0.0
    """Seconds that the device was at work, in this process."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def prepare(self, image: np.ndarray) -> object:
        """As PnP-OVSS does it."""
        from pnp_core.methods.pnp.loaded import model_pixels

        return model_pixels(image, (SIDE, SIDE))

    def encode(self, prepared: Sequence[object]) -> int:
        """The device's work: so long for a batch."""
        start = time.perf_counter()
        time.sleep(self._seconds * len(prepared))
        LoadedDevice.slept += time.perf_counter() - start
        return len(prepared)

    def look(self, batch: int, classes: Mapping[int, tuple[int, ...]]) -> dict[int, Seen]:
        """The same map for every class in all passes."""
        return {place: Seen(np.tile(BLOB, (PASSES, len(asked), 1, 1))) for place, asked in classes.items()}


class SimulatedMethod(Method[SimulatedConfig, Pinned]):
    """See `pnp_core.methods.base`."""

    def pin(self, config: SimulatedConfig) -> Pinned:
        """There are no weights."""
        return Pinned(revision="none")

    def load(self, config: SimulatedConfig, pinned: Pinned, captions: tuple[str, ...], device: str) -> LoadedDevice:
        """There is no model."""
        return LoadedDevice(config.seconds)

    def decide(self, config: SimulatedConfig, masks: MaskConfig, maps: ClassMaps, size: tuple[int, int]) -> Scores:
        """In the middle it is the classes, elsewhere background."""
        rows, columns = (resize_matrix(side, GRID) for side in size)
        scaled = rows @ maps.maps.mean(axis=0) @ columns.T
        background = np.full((1, *size), 0.5, dtype=np.float32)
        return Scores(np.concatenate([background, scaled]), (0, *maps.classes), maps.maps[0].mean(axis=(1, 2)))


METHOD = SimulatedMethod()
