"""CaR as a method: two CLIPs that look at a picture round by round, their maps to scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from PIL.Image import Resampling
from torch.nn import functional as F

from pnp_core.data import ClassMaps
from pnp_core.devices import resolve_device
from pnp_core.errors import ClassNameError
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.grids import blur_matrix, half_pixel_matrix
from pnp_core.masks.label_map import Scores, wants_background
from pnp_core.methods.base import LoadedMethod, Method, Pinned, Seen
from pnp_core.methods.car.config import CarConfig, Prompts
from pnp_core.methods.car.proposals import Sight, gradcams, refined, see
from pnp_core.methods.car.recurrence import recur, scores_of
from pnp_core.methods.car.visual_prompts import around, shown
from pnp_core.methods.remarks import unknown_names
from pnp_core.openclip.last_block import as_trained
from pnp_core.openclip.model import ClipModel, clip_revision, load_clip, require_vit
from pnp_core.openclip.positions import by_size_in_half
from pnp_core.openclip.queries import embed_queries, some

TOGETHER = 16
"""Pictures that the classifier sees together at most."""
THIN = 8
"""Sides in proportion to the other beyond which the classifier sees the middle alone."""
LEAST = 1e-5
"""Probability that the CRF takes for none."""


@dataclass(frozen=True)
class Pass:
    """Classes that are looked for together.

    Attributes:
        labels: of them.
        background: names that stand for what is none of them.
        prompts: how they are shown.
    """

    labels: tuple[int, ...]
    background: tuple[str, ...]
    prompts: Prompts


def names_asked(config: CarConfig, captions: Sequence[str]) -> list[str]:
    """What each class is asked by, from label 1.

    Raises:
        ClassNameError: there is a name for what is no class.
    """
    own = {caption.lower(): name for caption, name in config.names}
    _require_classes("names are given for", set(own), captions)
    return [own.get(caption.lower(), caption) for caption in captions]


def passes_of(config: CarConfig, captions: Sequence[str]) -> list[Pass]:
    """Things, and stuff where there is some: it is looked for in front of all things.

    Raises:
        ClassNameError: what is called stuff is no class, or every class is.
    """
    stuff = {name.lower() for name in config.stuff}
    _require_classes("stuff is", stuff, captions)
    labels: tuple[list[int], list[int]] = ([], [])
    for label, caption in enumerate(captions, 1):
        labels[caption.lower() in stuff].append(label)
    things = Pass(tuple(labels[0]), config.background, config.prompts)
    if not stuff:
        return [things]
    if not things.labels:
        raise ClassNameError("every class is called stuff, which is looked for in front of the others (method.stuff)")
    names = names_asked(config, captions)
    return [things, Pass(tuple(labels[1]), tuple(names[label - 1] for label in labels[0]), config.stuff_prompts)]


def _require_classes(what: str, given: set[str], captions: Sequence[str]) -> None:
    if strangers := sorted(given - {caption.lower() for caption in captions}):
        raise ClassNameError(f"{what} '{strangers[0]}', which is no class; classes: {some(captions)}")


class LoadedCar(LoadedMethod):
    """Two CLIPs, and the classes that they are asked about."""

    def __init__(
        self,
        config: CarConfig,
        revisions: tuple[str, str],
        clips: tuple[ClipModel, ClipModel],
        captions: tuple[str, ...],
    ) -> None:
        self._config, self._revisions, self._clips = config, revisions, clips
        self._vits = [
            clip.vit(own.model) for clip, own in zip(clips, (config.proposer, config.classifier), strict=True)
        ]
        self._names, self._passes = names_asked(config, captions), passes_of(config, captions)

    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The picture itself, or smaller where a side is longer than it may be."""
        height, width = image.shape[:2]
        factor = self._config.max_side / max(height, width)
        if factor >= 1:
            return image
        size = max(1, round(width * factor)), max(1, round(height * factor))
        return np.array(Image.fromarray(image).resize(size, Resampling.BICUBIC))

    def encode(self, prepared: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """The pictures: what the proposer makes of one is too large to be kept of a batch."""
        return prepared

    def look(self, batch: Sequence[np.ndarray], classes: Mapping[int, tuple[int, ...]]) -> dict[int, Seen]:
        """The maps that are left of the classes asked after the last round; 0 of those that were dropped.

        Match scores are those of each class's last round.
        """
        return {place: self._look(batch[place], asked) for place, asked in classes.items()}

    def _look(self, image: UInt8[np.ndarray, "h w 3"], asked: tuple[int, ...]) -> Seen:
        grid = self._grid(image)
        maps = np.zeros((len(self._passes), len(asked), *grid), dtype=np.float32)
        match = np.zeros(len(asked), dtype=np.float32)
        sight = see(self._vits[0], self._pixels(image)) if asked else None
        for own, one in zip(self._passes, maps, strict=True):
            at = [i for i, label in enumerate(asked) if label in own.labels]
            if sight is None or not at:
                continue
            look = _Round(self, own, [self._names[asked[i] - 1] for i in at], image, sight)
            left, found, match[at] = recur(len(at), look, self._config.confidence_threshold)
            one[[at[i] for i in left]] = found.view(-1, *grid).cpu().numpy()
        return Seen(maps, match)

    def _grid(self, image: np.ndarray) -> tuple[int, int]:
        height, width = (ceil(side / patch) for side, patch in zip(image.shape, self._vits[0].patch, strict=False))
        return height, width

    def _pixels(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[torch.Tensor, "1 3 H W"]:
        """Whole patches of the picture, which is stretched a little."""
        height, width = (side * patch for side, patch in zip(self._grid(image), self._vits[0].patch, strict=True))
        size = Image.fromarray(image).resize((width, height), Resampling.BICUBIC)
        return self._normalised(0, [np.asarray(size)])

    def _normalised(self, which: int, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> torch.Tensor:
        clip = self._clips[which]
        pixels = torch.from_numpy(np.stack(images)).to(clip.device).permute(0, 3, 1, 2).float()
        return (pixels / 255 - clip.mean) / clip.std

    def propose(self, own: Pass, sight: Sight, names: list[str], first: bool) -> Float[torch.Tensor, "N P"]:
        """Maps of names on the patches, in [0, 1]: in the first round they are asked for bare."""
        clip, (revision, _), config = self._clips[0], self._revisions, self._config
        texts = embed_queries(clip, revision, names, ("{}" if first else config.proposal_template,))
        background = embed_queries(clip, revision, own.background, (config.proposal_template,))
        cams = gradcams(self._vits[0], sight.trunk, texts, background, clip.scale)
        return refined(cams, sight.affinity, sight.trunk.grid, config.box_threshold)

    def classify(self, images: Sequence[UInt8[np.ndarray, "h w 3"]], names: list[str]) -> Float[np.ndarray, " N"]:
        """How well each name fits its picture, in [0, 1]."""
        clip, (_, revision) = self._clips[1], self._revisions
        parts = [images[at : at + TOGETHER] for at in range(0, len(images), TOGETHER)]
        features = torch.cat([self._features(part) for part in parts])
        texts = torch.stack([embed_queries(clip, revision, names, (one,)) for one in self._config.templates])
        return scores_of(features, texts, clip.scale).cpu().numpy()

    @torch.no_grad()
    def _features(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Float[torch.Tensor, "B E"]:
        """CLS in the space of texts; the released code takes it before the last block, which nobody runs there."""
        vit, size = self._vits[1], self._clips[1].size
        trunk = vit.trunk(self._normalised(1, [centre(image, size) for image in images]), by_size_in_half)
        tokens = trunk.tokens
        if not self._config.skip_last_block:
            tokens = as_trained(vit.last, tokens, vit.last.ln_1(tokens))
        return vit.project(tokens[:, :1])[:, 0]

    def shown(
        self, own: Pass, image: UInt8[np.ndarray, "h w 3"], maps: Float[torch.Tensor, "N gh gw"]
    ) -> list[UInt8[np.ndarray, "h w 3"]]:
        """The picture as each name's map has it shown; as it is where there is hardly anything of a map."""
        outside, size = around(image, own.prompts), (image.shape[0], image.shape[1])
        found = []
        for one in maps:
            large = F.interpolate(one[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
            inside = (large > self._config.mask_threshold).cpu().numpy()
            nothing = large.sum() <= 1 or not inside.any()
            found.append(image if nothing else shown(image, outside, inside, own.prompts))
        return found


@dataclass(frozen=True)
class _Round:
    """One round of a pass over a picture, see `pnp_core.methods.car.recurrence.Round`."""

    model: LoadedCar
    own: Pass
    names: list[str]
    image: UInt8[np.ndarray, "h w 3"]
    sight: Sight

    def __call__(self, numbers: list[int], first: bool) -> tuple[torch.Tensor, np.ndarray]:
        names = [self.names[n] for n in numbers]
        maps = self.model.propose(self.own, self.sight, names, first)
        images = self.model.shown(self.own, self.image, maps.unflatten(1, self.sight.trunk.grid))
        return maps, self.model.classify(images, names)


def centre(image: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "s s 3"]:
    """The middle of a picture whose shorter side is brought to a side, bicubic, as CLIP was trained.

    Of a picture more than `THIN` times as long as wide the ends are cut off before: enlarged they would be huge.
    """
    short = min(image.shape[:2])
    image = _middle(image, (THIN * short, THIN * short))
    height, width = (int(side * length / short) for length in image.shape[:2])
    return _middle(np.asarray(Image.fromarray(image).resize((width, height), Resampling.BICUBIC)), (side, side))


def _middle(image: UInt8[np.ndarray, "h w 3"], most: tuple[int, int]) -> np.ndarray:
    """Of each side at most so much."""
    top, left = (max(0, round((own - limit) / 2)) for own, limit in zip(image.shape, most, strict=False))
    return image[top : top + most[0], left : left + most[1]]


class CarMethod(Method[CarConfig, Pinned]):
    """See `pnp_core.methods.base`.

    Stored maps (K, C, gh, gw) are in [0, 1] on the patches, 0 of classes that were dropped. K is 1; 2 where there is
    stuff, which has its maps in the second and nothing in the first.
    """

    def pin(self, config: CarConfig) -> Pinned:
        """Name the weights.

        Raises:
            CheckpointError, UnknownNameError: there are none.
            UsageError: a CLIP sees with no ViT.
        """
        revisions = _revisions(config)
        for clip in (config.proposer, config.classifier):
            require_vit(clip)
        return Pinned(revision="+".join(revisions))

    def load(self, config: CarConfig, pinned: Pinned, captions: tuple[str, ...], device: str) -> LoadedCar:
        """Load both CLIPs; one where they are the same."""
        on = str(resolve_device(device))
        clips = load_clip(config.proposer, on), load_clip(config.classifier, on)
        return LoadedCar(config, _revisions(config), clips, captions)

    def warm(self, config: CarConfig, pinned: Pinned, device: str) -> None:
        """Load both CLIPs; one where they are the same."""
        for clip in (config.proposer, config.classifier):
            load_clip(clip, str(resolve_device(device)))

    def decide(self, config: CarConfig, masks: MaskConfig, maps: ClassMaps, size: tuple[int, int]) -> Scores:
        """Logarithms of the maps at the size of the picture, and of what they leave to the background.

        The authors refine stuff and things by themselves and lay things over stuff; here all are refined together, from
        scores of which the largest is the same.
        """
        rows, columns = (half_pixel_matrix(side, own) for side, own in zip(size, maps.maps.shape[2:], strict=True))
        large = np.clip(rows @ maps.maps @ columns.T, 0, 1)
        if masks.threshold > 0:
            large[large < masks.threshold] = 0
        if masks.blur > 0:
            down, along = (blur_matrix(side, masks.blur * max(size)) for side in size)
            large = down @ large @ along.T
        seen = np.flatnonzero(maps.maps.any(axis=(0, 2, 3)))
        background = wants_background(masks.background, len(maps.classes))
        found = laid_over(large[:, seen], background)
        labels = ((0,) if background else ()) + tuple(maps.classes[i] for i in seen)
        if not labels:  # nothing was seen of any class
            found, labels = np.ones((1, *size), dtype=np.float32), (0,)
        strength = maps.maps.sum(axis=0).mean(axis=(1, 2))
        return Scores(np.log(np.clip(found, LEAST, 1)), labels, strength)

    def remarks(self, config: CarConfig, captions: Sequence[str]) -> list[str]:
        """That nobody has chosen thresholds for these classes; what the bundled CLIP does not know.

        Raises:
            ClassNameError: names or stuff are given that are no class.
        """
        passes_of(config, captions)
        names, found = names_asked(config, captions), []
        if config.plain:
            found.append(
                "nobody has chosen thresholds for these classes: car takes those for COCO (method.mask_threshold, "
                "method.confidence_threshold, method.box_threshold)"
            )
        return found + unknown_names((config.proposer, config.classifier), names)


def _revisions(config: CarConfig) -> tuple[str, str]:
    return clip_revision(config.proposer), clip_revision(config.classifier)


def laid_over(maps: Float[np.ndarray, "K C H W"], background: bool) -> Float[np.ndarray, "N H W"]:
    """Scores of classes whose things lie above their stuff.

    Where things leave 1 - m of m = max of their maps, that is what the best of stuff and background has, and the others
    of these less in proportion.

    Args:
        maps: in [0, 1], of things, and of stuff where there are two passes; a class is in one of them.
        background: whether a first channel has what is left; to stuff 1 less the maximum of its maps is.
    """
    free = 1 - maps[0].max(axis=0, initial=0)[None]
    things, stuff = maps[0], maps[1] if len(maps) > 1 else np.zeros_like(maps[0])
    best = stuff.max(axis=0, initial=0)[None]
    least = 1 - best
    peak = np.maximum(best, least if background else np.float32(LEAST))
    classes = things + free * stuff / peak
    return np.concatenate([free * least / peak, classes]) if background else classes


METHOD = CarMethod()
