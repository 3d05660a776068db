"""NACLIP as a method: texts and patches to cosines, cosines to scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch.nn import functional as F

from pnp_core.bundled import TINY_VIT
from pnp_core.data import ClassMaps
from pnp_core.devices import resolve_device
from pnp_core.errors import ClassNameError, UsageError
from pnp_core.inputs.scenes.shapes import CLASS_NAMES
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.grids import blur_matrix
from pnp_core.masks.label_map import Scores, wants_background
from pnp_core.masks.resize import resize_bytes
from pnp_core.methods.base import LoadedMethod, Method, Pinned, Seen
from pnp_core.methods.naclip.config import NaclipConfig
from pnp_core.methods.naclip.sight import boxes_of, seen_size, to_pixels
from pnp_core.openclip.last_block import run_last_block
from pnp_core.openclip.model import ClipModel, clip_revision, load_clip, require_vit
from pnp_core.openclip.queries import embed_queries, templates_of
from pnp_core.openclip.windows import Box

TOGETHER = 2**22
"""Pairs of tokens that windows are looked at together with at most; each head has a number for each pair."""


def names_asked(config: NaclipConfig, captions: Sequence[str]) -> list[tuple[str, ...]]:
    """The queries of each class, from label 1.

    Raises:
        ClassNameError: there are queries for what is no class.
    """
    own = {name.lower(): names for name, names in config.queries}
    if strangers := sorted(set(own) - {caption.lower() for caption in captions}):
        raise ClassNameError(f"queries are given for '{strangers[0]}', which is no class; classes: {_some(captions)}")
    return [own.get(caption.lower(), (caption,)) for caption in captions]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")


@dataclass(frozen=True)
class Prepared:
    """A picture as the model sees it (h, w, 3) and its windows."""

    pixels: UInt8[np.ndarray, "h w 3"]
    boxes: list[Box]


class LoadedNaclip(LoadedMethod):
    """A CLIP, and the texts that patches are held against."""

    def __init__(self, config: NaclipConfig, revision: str, clip: ClipModel, captions: tuple[str, ...]) -> None:
        self._config, self._clip = config, clip
        self._vit = clip.vit(config.clip.model, config.dtype)
        least = min(config.short_side, config.window.side if config.window else config.short_side)
        if least < max(self._vit.patch):
            raise UsageError(f"CLIP {config.clip.model} has patches of {self._vit.patch[0]} pixels; {least} hold none")
        self.overflow = f"the model's numbers overflow (its image encoder runs in {config.dtype})"
        asked = [config.background, *names_asked(config, captions)]
        self._labels = np.repeat(np.arange(len(asked)), [len(names) for names in asked])
        names = [name for names in asked for name in names]
        self._texts = embed_queries(clip, revision, names, templates_of(config.templates))

    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Prepared:
        """The picture at the model's size, without smoothing as the authors have it."""
        size = seen_size((image.shape[0], image.shape[1]), self._config)
        patch = max(self._vit.patch)
        size = max(size[0], patch), max(size[1], patch)  # a thin one has one row of patches
        return Prepared(resize_bytes(image, size), boxes_of(size, self._config))

    def encode(self, prepared: Sequence[Prepared]) -> list[Float[torch.Tensor, "gh gw D"]]:
        """Patches of each picture, of length 1; its windows' grids are laid beside and below each other."""
        windows = [(n, box) for n, one in enumerate(prepared) for box in one.boxes]
        shapes = [(bottom - top, right - left) for _, (top, left, bottom, right) in windows]
        found: dict[int, torch.Tensor] = {}
        for shape in dict.fromkeys(shapes):
            same = [i for i, other in enumerate(shapes) if other == shape]
            rows, columns = self._vit.grid(shape)
            step = max(1, TOGETHER // (rows * columns + 1) ** 2)
            for at in range(0, len(same), step):
                some = same[at : at + step]
                cut = [_cut(prepared[windows[i][0]].pixels, windows[i][1]) for i in some]
                found |= dict(zip(some, self._patches(cut), strict=True))
        return [
            _laid_out([found[i] for i, (n, _) in enumerate(windows) if n == number], one.boxes)
            for number, one in enumerate(prepared)
        ]

    @torch.no_grad()
    def _patches(self, windows: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Float[torch.Tensor, "B gh gw D"]:
        config, vit = self._config, self._vit
        images = torch.from_numpy(np.stack(windows)).to(vit.device).permute(0, 3, 1, 2).float()
        trunk = vit.trunk((images / 255 - self._clip.mean) / self._clip.std)
        tokens = run_last_block(vit.last, trunk, config.attention, config.architecture == "vanilla", config.sigma)
        return F.normalize(vit.project(trunk.patches(tokens)), dim=-1).unflatten(1, trunk.grid)

    def look(self, batch: Sequence[torch.Tensor], classes: Mapping[int, tuple[int, ...]]) -> dict[int, Seen]:
        """Cosines of the patches with the queries of the classes asked, and of the background."""
        return {place: self._look(batch[place], asked) for place, asked in classes.items()}

    def _look(self, patches: Float[torch.Tensor, "gh gw D"], asked: tuple[int, ...]) -> Seen:
        if not asked:
            return Seen(np.zeros((1, 0, *patches.shape[:2]), dtype=np.float32))
        wanted = np.flatnonzero(np.isin(self._labels, (0, *asked)))
        cosines = (patches @ self._texts[wanted].T).permute(2, 0, 1)
        return Seen(cosines[None].cpu().numpy(), of=tuple(self._labels[wanted].tolist()))


def _cut(pixels: np.ndarray, box: Box) -> np.ndarray:
    top, left, bottom, right = box
    return pixels[top:bottom, left:right]


def _laid_out(grids: list[torch.Tensor], boxes: Sequence[Box]) -> torch.Tensor:
    """Grids of windows in the order of their places."""
    columns = len({left for _, left, _, _ in boxes})
    rows = [torch.cat(grids[at : at + columns], dim=1) for at in range(0, len(grids), columns)]
    return torch.cat(rows)


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

    def decide(self, config: NaclipConfig, masks: MaskConfig, maps: ClassMaps, size: tuple[int, int]) -> Scores:
        """Cosines at the size of the picture, and what is made of them once they are smoothed (see `probabilities`).

        Without a background that is wanted no query of it takes part, and no threshold.
        """
        background = wants_background(masks.background, len(maps.classes))
        of = np.array(maps.of)
        kept = np.flatnonzero(of >= (0 if background else 1))
        seen = seen_size((maps.height, maps.width), config)
        cosines = to_pixels(maps.maps[0][kept], seen, size, config)
        if masks.blur > 0:
            down, along = (blur_matrix(side, masks.blur * max(size)) for side in size)
            cosines = down @ cosines @ along.T
        groups = [np.flatnonzero(of[kept] == label) for label in (0, *maps.classes)]
        claims, least = len(groups[0]) > 0, masks.threshold if background else 0.0
        return Scores(
            channels=cosines,
            labels=((0,) if claims else ()) + maps.classes + ((0,) if least > 0 else ()),
            strength=_strength(maps, of),
            finish=partial(probabilities, groups=groups if claims else groups[1:], scale=config.scale, least=least),
            seen_at=seen,
        )

    def remarks(self, config: NaclipConfig, captions: Sequence[str]) -> list[str]:
        """That nobody has chosen names for these classes; what the bundled CLIP does not know.

        Raises:
            ClassNameError: there are queries for what is no class.
        """
        names = names_asked(config, captions)
        found = []
        if config.plain:
            found.append(
                f"nobody has chosen queries for these classes: naclip asks for each by its name, and for "
                f"{len(config.background)} common names as background (method.queries, method.background)"
            )
        unknown = [n for own in names for n in own if n.lower() not in CLASS_NAMES]
        if config.clip.model == TINY_VIT and unknown:
            found.append(
                f"the bundled CLIP {TINY_VIT} knows only its {len(CLASS_NAMES)} drawn classes, not "
                f"{_some(unknown)}: its masks mean nothing"
            )
        return found


def _strength(maps: ClassMaps, of: np.ndarray) -> Float[np.ndarray, " C"]:
    """Mean over patches of each class's best cosine."""
    return np.array([maps.maps[0][of == label].max(axis=0).mean() for label in maps.classes], dtype=np.float32)


def probabilities(
    cosines: Float[np.ndarray, "Q H W"], groups: Sequence[np.ndarray], scale: float, least: float
) -> Float[np.ndarray, "N H W"]:
    """Logarithms of class probabilities: the softmax over queries, and of a class its most probable query.

    Args:
        groups: of each class the places of its queries.
        scale: of the cosines before the softmax.
        least: probability below which a pixel is background, a last channel of that height; none when 0.
    """
    best = np.stack([cosines[group].max(axis=0) for group in groups])
    peak = best.max(axis=0)
    total = np.zeros_like(peak)
    for one in cosines:  # one by one: a copy of them all would be as large again
        total += np.exp(scale * (one - peak))
    best = scale * (best - peak) - np.log(total)
    return best if least == 0 else np.concatenate([best, np.full_like(peak, np.log(least))[None]])


METHOD = NaclipMethod()
