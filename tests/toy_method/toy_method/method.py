"""The toy method: no model, no weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from pnp_core.data import ClassMaps
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.grids import min_max, resize_matrix
from pnp_core.masks.label_map import Scores
from pnp_core.methods.base import LoadedMethod, Method, Pinned, Seen
from toy_method.config import ToyConfig


class LoadedToy(LoadedMethod):
    """Looks at colours."""

    def __init__(self, config: ToyConfig) -> None:
        self._grid = config.grid

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Mean colours of the cells (grid, grid, 3)."""
        return np.asarray(Image.fromarray(image).resize((self._grid, self._grid), Image.Resampling.BOX), np.float32)

    def encode(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """How far each cell is from the border's median colour (B, grid, grid)."""
        cells = np.stack(prepared)
        border = np.concatenate([cells[:, 0], cells[:, -1], cells[:, :, 0], cells[:, :, -1]], axis=1)
        return np.abs(cells - np.median(border, axis=1)[:, None, None]).sum(-1)

    def look(self, batch: np.ndarray, classes: Mapping[int, tuple[int, ...]]) -> dict[int, Seen]:
        """The same map for every class."""
        return {place: Seen(np.repeat(batch[place][None, None], len(asked), 1)) for place, asked in classes.items()}


class ToyMethod(Method[ToyConfig, Pinned]):
    """See `pnp_core.methods.base`."""

    def pin(self, config: ToyConfig) -> Pinned:
        """There are no weights."""
        return Pinned(revision="none")

    def load(self, config: ToyConfig, pinned: Pinned, captions: tuple[str, ...], device: str) -> LoadedToy:
        """There is no model."""
        return LoadedToy(config)

    def decide(self, config: ToyConfig, masks: MaskConfig, maps: ClassMaps, size: tuple[int, int]) -> Scores:
        """Above the threshold it is the class, below it background."""
        rows, columns = (resize_matrix(side, config.grid) for side in size)
        scaled = rows @ min_max(maps.maps[0]) @ columns.T
        background = np.full((1, *size), masks.threshold, dtype=np.float32)
        return Scores(np.concatenate([background, scaled]), (0, *maps.classes), maps.maps[0].mean(axis=(1, 2)))


METHOD = ToyMethod()
