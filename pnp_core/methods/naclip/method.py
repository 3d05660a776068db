"""NACLIP as a method: texts and patches to cosines, cosines to scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch.nn import functional as F

from pnp_core.data import ClassMaps
from pnp_core.devices import resolve_device
from pnp_core.errors import UsageError
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.cosines import query_scores
from pnp_core.masks.label_map import Scores
from pnp_core.masks.resize import resize_bytes
from pnp_core.methods.base import LoadedMethod, Method, Pinned, Seen
from pnp_core.methods.naclip.config import NaclipConfig
from pnp_core.methods.naclip.sight import boxes_of, seen_size, to_pixels
from pnp_core.methods.remarks import unknown_names
from pnp_core.openclip.last_block import run_last_block
from pnp_core.openclip.model import ClipModel, clip_revision, load_clip, require_vit
from pnp_core.openclip.queries import QueryTexts, embed_queries, names_asked, templates_of
from pnp_core.openclip.windows import Windowed, through_windows


class LoadedNaclip(LoadedMethod):
    """A CLIP, and the texts that patches are held against."""

    def __init__(self, config: NaclipConfig, revision: str, clip: ClipModel, captions: tuple[str, ...]) -> None:
        self._config, self._clip = config, clip
        self._vit = clip.vit(config.clip.model, config.dtype)
        least = min(config.short_side, config.window.side if config.window else config.short_side)
        if least < max(self._vit.patch):
            raise UsageError(f"CLIP {config.clip.model} has patches of {self._vit.patch[0]} pixels; {least} hold none")
        self.overflow = f"the model's numbers overflow (its image encoder runs in {config.dtype})"
        embed = partial(embed_queries, clip, revision, templates=templates_of(config.templates))
        self._texts = QueryTexts(config.background, names_asked(config.queries, captions), embed)

    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Windowed:
        """The picture at the model's size, without smoothing as the authors have it."""
        size = seen_size((image.shape[0], image.shape[1]), self._config)
        patch = max(self._vit.patch)
        size = max(size[0], patch), max(size[1], patch)  # a thin one has one row of patches
        return Windowed(resize_bytes(image, size), boxes_of(size, self._config))

    def encode(self, prepared: Sequence[Windowed]) -> list[Float[torch.Tensor, "gh gw D"]]:
        """Patches of each picture, of length 1; its windows' grids are laid beside and below each other."""
        return through_windows(prepared, self._patches, self._vit.patch)

    @torch.no_grad()
    def _patches(self, windows: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Float[torch.Tensor, "B gh gw D"]:
        config, vit = self._config, self._vit
        images = torch.from_numpy(np.stack(windows)).to(vit.device).permute(0, 3, 1, 2).float()
        trunk = vit.trunk((images / 255 - self._clip.mean) / self._clip.std)
        tokens = run_last_block(vit.last, trunk, config.attention, config.architecture == "vanilla", config.sigma)
        return F.normalize(vit.project(trunk.patches(tokens)), dim=-1).unflatten(1, trunk.grid)

    def look(self, batch: Sequence[torch.Tensor], classes: Mapping[int, tuple[int, ...]]) -> dict[int, Seen]:
        """Cosines of the patches with the queries of the classes asked, and of the background."""
        found = {place: self._texts.cosines(batch[place], asked) for place, asked in classes.items()}
        return {place: Seen(maps, of=of) for place, (maps, of) in found.items()}


class NaclipMethod(Method[NaclipConfig, Pinned]):
    """See `pnp_core.methods.base`.

    Stored maps (1, Q, gh, gw) are cosines in [-1, 1], of each query on the patches; where there are windows their grids
    lie beside and below each other as the windows do, the patches of overlaps more than once.
    """

    def pin(self, config: NaclipConfig) -> Pinned:
        """Name the weights.

        Raises:
            CheckpointError, UnknownNameError: there are none.
            UsageError: the CLIP sees with no ViT.
        """
        revision = clip_revision(config.clip)
        require_vit(config.clip)
        return Pinned(revision=revision)

    def load(self, config: NaclipConfig, pinned: Pinned, captions: tuple[str, ...], device: str) -> LoadedNaclip:
        """Load the CLIP and embed the queries."""
        return LoadedNaclip(config, pinned.revision, load_clip(config.clip, str(resolve_device(device))), captions)

    def warm(self, config: NaclipConfig, pinned: Pinned, device: str) -> None:
        """Load the CLIP."""
        load_clip(config.clip, str(resolve_device(device)))

    def decide(self, config: NaclipConfig, masks: MaskConfig, maps: ClassMaps, size: tuple[int, int]) -> Scores:
        """Cosines at the size of the picture, and what is made of them once they are smoothed (see `query_scores`).

        Without a background that is wanted no query of it takes part, and no threshold.
        """
        seen = seen_size((maps.height, maps.width), config)
        return query_scores(maps, masks, size, partial(to_pixels, seen=seen, config=config), config.scale, seen)

    def remarks(self, config: NaclipConfig, captions: Sequence[str]) -> list[str]:
        """That nobody has chosen names for these classes; what the bundled CLIP does not know.

        Raises:
            ClassNameError: there are queries for what is no class.
        """
        names = names_asked(config.queries, captions)
        found = []
        if config.plain:
            found.append(
                f"nobody has chosen queries for these classes: naclip asks for each by its name, and for "
                f"{len(config.background)} common names as background (method.queries, method.background)"
            )
        return found + unknown_names((config.clip,), [name for own in names for name in own])


METHOD = NaclipMethod()
