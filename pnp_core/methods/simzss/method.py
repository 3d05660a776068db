"""SimZSS as a method: texts and patches to cosines, cosines to scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from pnp_core.data import ClassMaps
from pnp_core.devices import resolve_device
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.cosines import query_scores
from pnp_core.masks.label_map import Scores
from pnp_core.masks.resize import resize_bytes
from pnp_core.methods.base import LoadedMethod, Method, Seen
from pnp_core.methods.simzss.config import PATCH, SimzssConfig
from pnp_core.methods.simzss.sight import boxes_of, seen_size, to_pixels
from pnp_core.methods.simzss.tower import SimzssModel
from pnp_core.methods.simzss.weights import SimzssWeights, convert, load_towers, locate
from pnp_core.openclip.queries import QueryTexts, embed_queries, names_asked, templates_of
from pnp_core.openclip.windows import Windowed, through_windows
from pnp_core.storage.weights import Conversion

REMARK = (
    "simzss: how masks are made of its features is this project's protocol, its authors published none; the class "
    "names of the usual benchmarks were supervised in its training (docs/methods.md)"
)


class LoadedSimzss(LoadedMethod):
    """The towers, and the texts that patches are held against."""

    def __init__(self, config: SimzssConfig, revision: str, model: SimzssModel, captions: tuple[str, ...]) -> None:
        self._config, self._model = config, model
        self.overflow = f"the model's numbers overflow (its image encoder runs in {config.dtype})"
        embed = partial(embed_queries, model, revision, templates=templates_of(config.templates))
        self._texts = QueryTexts(config.background, names_asked(config.queries, captions), embed)

    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Windowed:
        """The picture at the model's size, bilinear and without smoothing, as mmsegmentation's pipelines have it."""
        size = seen_size((image.shape[0], image.shape[1]), self._config)
        return Windowed(resize_bytes(image, size), boxes_of(size, self._config))

    def encode(self, prepared: Sequence[Windowed]) -> list[Float[torch.Tensor, "gh gw D"]]:
        """Patches of each picture, of length 1; its windows' grids are laid beside and below each other."""
        return through_windows(prepared, self._patches, (PATCH, PATCH))

    def _patches(self, windows: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Float[torch.Tensor, "B gh gw D"]:
        images = torch.from_numpy(np.stack(windows)).to(self._model.device).permute(0, 3, 1, 2).float()
        return self._model.encode_pixels(images / 255)

    def look(self, batch: Sequence[torch.Tensor], classes: Mapping[int, tuple[int, ...]]) -> dict[int, Seen]:
        """Cosines of the patches with the queries of the classes asked, and of the background."""
        found = {place: self._texts.cosines(batch[place], asked) for place, asked in classes.items()}
        return {place: Seen(maps, of=of) for place, (maps, of) in found.items()}


class SimzssMethod(Method[SimzssConfig, SimzssWeights]):
    """See `pnp_core.methods.base`.

    Stored maps (1, Q, gh, gw) are cosines in [-1, 1], of each query on the patches; where there are windows their grids
    lie beside and below each other as the windows do, the patches of overlaps more than once.
    """

    def pin(self, config: SimzssConfig) -> SimzssWeights:
        """Find and name the weights.

        Raises:
            CheckpointError: there are none, or they are unfit.
        """
        return locate(config.checkpoint)

    def load(self, config: SimzssConfig, pinned: SimzssWeights, captions: tuple[str, ...], device: str) -> LoadedSimzss:
        """Load the towers and embed the queries."""
        model = SimzssModel(load_towers(pinned), resolve_device(device), config.dtype)
        return LoadedSimzss(config, pinned.revision, model, captions)

    def decide(self, config: SimzssConfig, masks: MaskConfig, maps: ClassMaps, size: tuple[int, int]) -> Scores:
        """Cosines at the size of the picture, and the class probabilities that are made of them (see `query_scores`).

        Where a background is wanted, pixels whose best probability is below `masks.threshold` are background.
        """
        seen = seen_size((maps.height, maps.width), config)
        return query_scores(maps, masks, size, partial(to_pixels, seen=seen, config=config), config.scale, seen)

    def convert(self, file: Path, out: Path) -> Conversion:
        """Make a checkpoint folder of the authors' file, see `weights.convert`."""
        return convert(file, out)

    def remarks(self, config: SimzssConfig, captions: Sequence[str]) -> list[str]:
        """Whose protocol it is, and what was supervised.

        Raises:
            ClassNameError: there are queries for what is no class.
        """
        names_asked(config.queries, captions)
        return [REMARK]


METHOD = SimzssMethod()
