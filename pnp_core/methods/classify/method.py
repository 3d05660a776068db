"""Classify as a method: proposals to crops, crops to class probabilities, and these back to their pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from pnp_core.data import ClassMaps
from pnp_core.devices import resolve_device
from pnp_core.errors import MethodError, UsageError
from pnp_core.masks.components import packed, unpacked
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.label_map import Scores, wants_background
from pnp_core.methods.base import LoadedMethod, Method, Question, Seen
from pnp_core.methods.classify.config import ClassifyConfig
from pnp_core.methods.classify.pieces import Pieces, cut_out
from pnp_core.methods.classify.sources import PinnedProposals, Proposals, RunSource, find_source, open_source
from pnp_core.methods.remarks import unknown_names
from pnp_core.openclip.model import ClipModel, clip_revision, load_clip
from pnp_core.openclip.queries import embed_queries, templates_of
from pnp_core.storage.run_folder import RunFolder, fingerprint

TOGETHER = 32
"""Crops that the CLIP looks at together; no more of them are in memory."""
SHOWN_SIDE = 24
"""Cells a side at most of what people are shown."""
_LEAST = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Prepared:
    """A picture and its proposals."""

    image: UInt8[np.ndarray, "H W 3"]
    pieces: Pieces


@dataclass(frozen=True)
class Encoded:
    """Proposals of a picture, and what the CLIP sees in them (R, D)."""

    pieces: Pieces
    features: Float[torch.Tensor, "R D"]


class LoadedClassify(LoadedMethod):
    """A CLIP, the captions of all classes, and proposals by key."""

    def __init__(self, config: ClassifyConfig, clip: ClipModel, texts: torch.Tensor, proposals: Proposals) -> None:
        self._config, self._clip, self._texts, self._proposals = config, clip, texts, proposals

    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Prepared:
        """There are proposals of pictures that have a key alone."""
        raise MethodError("classify looks at pictures with a key alone: proposals are found by it")

    def prepare_keyed(self, key: str, image: UInt8[np.ndarray, "H W 3"]) -> Prepared:
        """The picture with its proposals.

        Raises:
            MissingProposals: it has none.
            UnusableImage: they cannot be read.
            CorruptRunError: a file of their run is missing or damaged.
        """
        return Prepared(image, self._proposals.of(key, (image.shape[0], image.shape[1]), self._config.min_area))

    def encode(self, prepared: Sequence[Prepared]) -> list[Encoded]:
        """What the CLIP sees in each proposal: a square around it, the mean colour of CLIP's training elsewhere."""
        return [Encoded(one.pieces, self._features(one)) for one in prepared]

    def _features(self, one: Prepared) -> Float[torch.Tensor, "R D"]:
        found, number = [self._texts[:0]], len(one.pieces.boxes)
        for at in range(0, number, TOGETHER):
            some = range(at, min(at + TOGETHER, number))
            crops = [cut_out(one.image, one.pieces, n, self._config.expand, self._clip.size) for n in some]
            images, regions = (torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True))
            found.append(self._clip.encode_regions(images, regions))
        return torch.cat(found)

    def look(self, batch: Sequence[Encoded], classes: Mapping[int, tuple[int, ...]]) -> dict[int, Seen]:
        """Probabilities of the asked classes by piece, and where the pieces are."""
        return {place: self._look(batch[place], asked) for place, asked in classes.items()}

    def _look(self, one: Encoded, asked: tuple[int, ...]) -> Seen:
        if not asked:
            return Seen(np.zeros((1, 0, 1, 1), dtype=np.float32))
        texts = self._texts[[label - 1 for label in asked]]
        probabilities = (self._clip.scale * one.features @ texts.T).softmax(-1).cpu().numpy()
        scores = by_piece(probabilities, one.pieces)
        runs = packed(one.pieces.ids)[:, None, None]
        parts = (Seen(scores[None, :, None]), Seen(runs, of=(0,)))
        return Seen(scores[None][:, :, _sampled(one.pieces.ids)], parts=parts)


def by_piece(probabilities: Float[np.ndarray, "R C"], pieces: Pieces) -> Float[np.ndarray, "C A"]:
    """Of each piece and class the highest probability of the proposals that hold it; in column 0, of nothing, 0."""
    scores = np.zeros((probabilities.shape[1], pieces.number + 1), dtype=np.float32)
    for row, held in zip(probabilities, pieces.held, strict=True):
        own = list(held)
        scores[:, own] = np.maximum(scores[:, own], row[:, None])
    return scores


def _sampled(ids: np.ndarray) -> np.ndarray:
    """A map of numbers on at most `SHOWN_SIDE` cells a side."""
    return _resized(ids, (min(SHOWN_SIDE, ids.shape[0]), min(SHOWN_SIDE, ids.shape[1])))


def _resized(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The number at the middle of each pixel of another size."""
    if ids.shape == size:
        return ids
    rows, columns = (((np.arange(to) + 0.5) * side / to).astype(int) for to, side in zip(size, ids.shape, strict=True))
    return ids[rows[:, None], columns]


class ClassifyMethod(Method[ClassifyConfig, PinnedProposals]):
    """See `pnp_core.methods.base`.

    Stored of a picture are two parts. The first (1, C, 1, A + 1) has the probabilities in [0, 1] of each piece, that of
    nothing first; the second (2, 1, 1, N) the map of pieces as runs along its rows, so that borders stay as they are.
    """

    def pin(self, config: ClassifyConfig) -> PinnedProposals:
        """Name the weights and the proposals.

        Raises:
            CheckpointError, UnknownNameError: there are no such weights.
            UsageError: prompts do not fit; there are no proposals.
            CorruptRunError: a record of their run is damaged.
        """
        clip, source = clip_revision(config.clip), find_source(config.proposals)
        return PinnedProposals(revision=fingerprint(clip, source.revision), clip=clip, source=source)

    def load(
        self, config: ClassifyConfig, pinned: PinnedProposals, captions: tuple[str, ...], device: str
    ) -> LoadedClassify:
        """Load the CLIP and embed the classes."""
        clip = load_clip(config.clip, str(resolve_device(device)))
        texts = embed_queries(clip, pinned.clip, captions, templates_of(config.templates))
        return LoadedClassify(config, clip, texts, open_source(pinned.source))

    def warm(self, config: ClassifyConfig, pinned: PinnedProposals, device: str) -> None:
        """Load the CLIP."""
        load_clip(config.clip, str(resolve_device(device)))

    def decide(self, config: ClassifyConfig, masks: MaskConfig, maps: ClassMaps, size: tuple[int, int]) -> Scores:
        """Each piece's probabilities on its pixels, as logarithms; background where nothing is proposed.

        Where a background is wanted what is not above the threshold is background too.
        """
        scores, runs = maps.parts[0].maps[0, :, 0], maps.parts[1].maps[:, 0, 0]
        ids = _resized(unpacked(runs, (maps.height, maps.width)), size)
        least = masks.threshold if wants_background(masks.background, len(maps.classes)) else 0.0
        background = np.full(scores.shape[1], least, dtype=np.float32)
        background[0] = 1
        logits = np.log(np.maximum(np.concatenate([background[None], scores]), _LEAST))
        strength = (scores * (np.bincount(ids.ravel(), minlength=scores.shape[1]) / ids.size)).sum(axis=1)
        return Scores(logits[:, ids], (0, *maps.classes), strength.astype(np.float32))

    def check_question(self, config: ClassifyConfig, pinned: PinnedProposals, question: Question) -> None:
        """Whether the run that proposals are from is of these pictures.

        Raises:
            UsageError: it is not.
        """
        source = pinned.source
        if not isinstance(source, RunSource):
            return
        if RunFolder(source.run).path("") == RunFolder(question.out).path(""):
            raise UsageError(f"run '{source.run}' is where the masks are to go: choose another --out")
        if source.card != question.card:
            raise UsageError(
                f"run '{source.run}' is of {source.card}, not of {question.card}: name a run of the same pictures"
            )

    def remarks(self, config: ClassifyConfig, captions: Sequence[str]) -> list[str]:
        """What the bundled CLIPs do not know."""
        return unknown_names((config.clip,), captions)


METHOD = ClassifyMethod()
