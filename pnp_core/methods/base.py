"""What a method is: how images and names of classes become scores of every pixel.

Two halves, as the stages have them. The dear one, `LoadedMethod.look`, is run once and its maps are stored; the cheap
one, `Method.decide`, makes scores of stored maps and can be repeated. A method that puts finished runs together looks
at nothing: `StoredMaps.recall` is its first half. A method is a room of its own: its configuration (`MethodConfig`,
light, found by name) says where its `Method` is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import numpy as np
from jaxtyping import Float, UInt8

from pnp_core.data import ClassMaps
from pnp_core.errors import UsageError
from pnp_core.frozen import OF_MASKS, Config, Newer, marks
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.label_map import Scores
from pnp_core.storage.weights import Conversion

PNP = "pnp-ovss"
"""The method of runs that name none."""
Value = bool | int | float | str
"""Of a setting that can be searched."""
THRESHOLDS: tuple[float, ...] = (0.05, 0.1, 0.15, 0.25, 0.35, 0.45)
BLURS: tuple[float, ...] = (0.0, 0.01, 0.02, 0.05)


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """The weights of a method, found and named, but not loaded.

    Attributes:
        revision: names them in fingerprints.
        version: goes up when the same weights give other maps.
        contrastive: the model ranks classes by a head of its own (`LoadedMethod.similarity`).
        match_all: all classes that the model knows are matched unless a ranker is asked for.
    """

    revision: str
    version: int = 1
    contrastive: bool = False
    match_all: bool = False

    @property
    def shape(self) -> dict[str, int] | None:
        """What of the model's make settings can choose among, for records."""
        return None

    @property
    def runs(self) -> tuple[dict[str, str], ...]:
        """Finished runs that stand in for weights, for records: where each is, and what names its maps and masks."""
        return ()


@dataclass(frozen=True)
class Description:
    """A method's configuration for people.

    Attributes:
        weights: where they are from.
        model: kind of model and weights, what rows of masks say of their origin.
        row: what a row of the main table is: model, weights, resolution.
        settings: the rest in a few words each.
    """

    weights: str
    model: str
    row: str
    settings: tuple[str, ...] = ()


class MethodConfig(Config):
    """Settings of a method. Light: what tables, reports and help texts need is here, without any model.

    A method declares `name` as a `Literal` with its one value as default. Settings are marked with what they mean for
    the names of results (`pnp_core.frozen`); those of `decide` alone with `OF_MASKS`.
    """

    place: ClassVar[str]
    """Of its `Method`, `module:object`."""
    matches: ClassVar[bool] = False
    """Whether it has a match score of its own (`LoadedMethod.match`), for the source of candidates `itm`."""
    thresholds: ClassVar[bool] = True
    """Whether its scores depend on threshold, ties, blur and background of the masks stage."""
    decides: ClassVar[int] = 1
    """Version of `Method.decide`: goes up when the same maps give other scores."""

    name: Annotated[str, Newer(PNP)]
    """Method of segmentation: `pnp-ovss`, `naclip`, `car`, `simzss`, `classify`, `ensemble`, or one that another
    package adds (docs/methods.md)."""

    @classmethod
    def own_name(cls) -> str:
        """What configurations call it."""
        return cls.model_fields["name"].default

    @classmethod
    def defaults(cls, values: Mapping[str, Any], bundled: str) -> dict[str, Any]:
        """What a flow's configuration starts from under this method, before what was given is laid over it.

        Args:
            values: what was given, unchecked.
            bundled: name of the bundled models for the flow's images: `tiny` for drawn scenes, `photo`.

        Raises:
            UsageError: a preset that is none of this method's.
        """
        if values.get("preset"):
            raise UsageError(f"preset '{values['preset']}' is none of {cls.own_name()}'s; leave it out")
        return {}

    @classmethod
    def of_weights(cls, weights: str) -> dict[str, Any]:
        """The settings that stand for weights named by one word: a checkpoint, or a CLIP.

        Raises:
            UsageError: the method has no weights of its own.
        """
        raise UsageError(f"{cls.own_name()} has no weights that one name stands for; give its settings")

    @classmethod
    def space(cls) -> dict[str, tuple[Value, ...]]:
        """What `tune` chooses from, values by path: settings of `decide` alone, since all are tried on the same maps.

        These are `masks.threshold`, `masks.ties`, `masks.blur`, and under `method.` those marked `OF_MASKS`. A method
        whose `decide` has no use for one of the usual two leaves it out.

        Raises:
            UsageError: there is nothing to choose; says why, and what to do.
        """
        return {"masks.threshold": THRESHOLDS, "masks.blur": BLURS} if cls.thresholds else {}

    @abstractmethod
    def describe(self) -> Description:
        """In words."""

    def map_facts(self) -> dict[str, Any]:
        """What names its maps in fingerprints."""
        return {"method": self._facts_of(masks=False)}

    def mask_facts(self) -> dict[str, Any]:
        """What names its masks in fingerprints, besides the maps."""
        version = {"decides": self.decides} if self.decides > 1 else {}
        return {"method": version | self._facts_of(masks=True)}

    def _facts_of(self, masks: bool) -> dict[str, Any]:
        return {name: fact for name, fact in self.facts().items() if _of_masks(type(self), name) == masks}

    def without_masks(self) -> MethodConfig:
        """The same with the settings of `decide` at their defaults: what a loaded model depends on."""
        usual = {n: f.get_default(call_default_factory=True) for n, f in type(self).model_fields.items()}
        return self.model_copy(update={n: value for n, value in usual.items() if _of_masks(type(self), n)})

    def with_revision(self, pinned: Pinned) -> MethodConfig:
        """The same with the weights named so that they are these tomorrow and elsewhere."""
        return self


def _of_masks(kind: type[MethodConfig], field: str) -> bool:
    return OF_MASKS in marks(kind.model_fields[field])


@dataclass(frozen=True)
class Seen:
    """What a method saw in one image. A class that it drops has maps of zeros, or is left out by `decide`.

    Attributes:
        maps: (K, C, gh, gw) float32, passes x asked class x patch grid; grids may differ by image. What K, the values
            and their signs mean is the method's; windows are put together before.
        match: (C,) float32, probability in [0, 1] that the class is there; None where the method has none.
        of: label of each map, where a class may have several and the background (0) some; each asked class has at
            least one. Empty where the maps are of the asked classes, one each.
        parts: what is stored of the image in the method's own form, where a grid does not hold it; `maps` are then for
            people. Each is (K, C, gh, gw) of whatever size, and says what it is of.
    """

    maps: Float[np.ndarray, "K C gh gw"]
    match: Float[np.ndarray, " C"] | None = None
    of: tuple[int, ...] = ()
    parts: tuple[Seen, ...] = ()

    def fits(self, classes: tuple[int, ...]) -> bool:
        """Whether it is of these classes."""
        of_match = self.match is None or self.match.shape == (len(classes),)
        of = self.of or classes
        known = set(classes) == set(of) - {0}
        return known and self.maps.ndim == 4 and len(of) == self.maps.shape[1] and _is_float32(self.maps) and of_match


def _is_float32(values: np.ndarray) -> bool:
    return values.dtype == np.float32


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a run asks a method, for those that cannot answer everything.

    Attributes:
        out: the run folder.
        card: name of the dataset card.
        names: of the labels 1, 2 ...
        vocabulary: labels that may be candidates.
        candidates: what of the configuration of how they are chosen counts, as JSON.
    """

    out: str
    card: str
    names: tuple[str, ...]
    vocabulary: tuple[int, ...]
    candidates: Mapping[str, Any]


class Loaded:
    """A method that is ready for images: a `LoadedMethod`, which looks at them, or `StoredMaps`."""

    def check(self, labels: tuple[int, ...]) -> None:
        """Find out, before `label` and `tune` begin, whether the model can be asked about some classes.

        Raises:
            UsageError: it cannot read a name.
        """


class StoredMaps(Loaded, ABC):
    """A method that looks at no image: its maps are those of finished runs, and so are the candidates."""

    @abstractmethod
    def recall(self, key: str, size: tuple[int, int]) -> ClassMaps:
        """The maps of an image; called on several threads at a time.

        Args:
            size: (H, W) of the image in pixels.

        Raises:
            MissingMaps: there are none, or they are of an image of another size; it is quarantined.
            CorruptRunError: a file of a run is missing or damaged.
        """


class LoadedMethod(Loaded, ABC):
    """A method with its model loaded. The stage of the maps calls `prepare`, `encode`, `match`, `look`, in turn."""

    overflow: str = "the model's numbers overflow"
    """Why what it says may not be finite, for people."""

    @abstractmethod
    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        """What the model needs of an image; called on several decoding threads at a time."""

    def prepare_keyed(self, key: str, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        """As `prepare`, for methods that have something of each image by its key.

        Raises:
            UnusableImage: of this one they have not; it is quarantined.
        """
        return self.prepare(image)

    @abstractmethod
    def encode(self, prepared: Sequence[Any]) -> Any:
        """A batch of B prepared images as `match` and `look` take it; computed once."""

    @abstractmethod
    def look(self, batch: Any, classes: Mapping[int, tuple[int, ...]]) -> dict[int, Seen]:
        """Maps of some images of a batch.

        Args:
            classes: by place in the batch the labels that are asked about; there may be none.

        Returns:
            By the same places; of an image without classes maps (K, 0, gh, gw).
        """

    def match(self, batch: Any, labels: tuple[int, ...]) -> Float[np.ndarray, "B C"]:
        """How probably each image holds each class, in [0, 1]. Only where the method `matches`."""
        raise UsageError("this method has no match score; use --candidates labels, vocabulary, clip or file")

    def match_each(self, batch: Any, labels: Sequence[tuple[int, ...]]) -> list[Float[np.ndarray, " C"]]:
        """How probably each image holds each of its own classes, in [0, 1]. Only where the method `matches`.

        Args:
            labels: of each image of the batch.
        """
        together = tuple(sorted(set().union(*labels)))
        found = self.match(batch, together)
        return [found[i, np.searchsorted(together, own)] for i, own in enumerate(labels)]

    def similarity(self, batch: Any, labels: tuple[int, ...]) -> Float[np.ndarray, "B C"]:
        """How alike each image and each class are to a contrastive head. Only where the weights are `contrastive`."""
        raise UsageError("this method has no contrastive head; use candidates.ranker: clip")


Decision = Callable[[MaskConfig, ClassMaps, tuple[int, int]], Scores]
"""`Method.decide` of a configuration."""
Settings = TypeVar("Settings", bound=MethodConfig)
Weights = TypeVar("Weights", bound=Pinned)


class Method(ABC, Generic[Settings, Weights]):
    """What a method does. It has no state: everything is passed."""

    @abstractmethod
    def pin(self, config: Settings) -> Weights:
        """Find and name the weights, without loading them, and check the settings against them.

        Raises:
            UsageError: they are missing or unfit.
        """

    @abstractmethod
    def load(self, config: Settings, pinned: Weights, captions: tuple[str, ...], device: str) -> Loaded:
        """Load the model.

        Args:
            captions: the classes as captions say them, from label 1.
            device: `auto`, `cpu`, `cuda:1` ...

        Raises:
            UsageError: the weights do not fit.
        """

    def warm(self, config: Settings, pinned: Weights, device: str) -> None:
        """Load the weights for a `load` with whatever classes that comes later in this process.

        Raises:
            UsageError: the weights do not fit.
        """

    @abstractmethod
    def decide(self, config: Settings, masks: MaskConfig, maps: ClassMaps, size: tuple[int, int]) -> Scores:
        """Scores of one image's stored maps at a size (H, W) in pixels, ready for refinement and argmax.

        Args:
            masks: with `background` other than `auto`. What threshold, ties, blur and background mean is the method's.
            maps: of at least one class.
        """

    def decision(self, config: Settings, pinned: Weights) -> Decision:
        """`decide` of a configuration, for methods that depend on the weights in it too."""
        return partial(self.decide, config)

    def check_question(self, config: Settings, pinned: Weights, question: Question) -> None:
        """Find out before a run begins whether it can be done at all.

        Raises:
            UsageError: it cannot; says what does not fit.
        """

    def askable(self, config: Settings, captions: Mapping[int, str]) -> tuple[int, ...]:
        """Labels that the model can be asked about, of those that somebody wants to ask about.

        Args:
            captions: the classes as captions say them, by label.

        Raises:
            UsageError: there is none.
        """
        return tuple(captions)

    def convert(self, file: Path, out: Path) -> Conversion:
        """Make a checkpoint folder of a file that the method's authors published, for `pnp-ovss convert-weights`.

        Args:
            out: a folder that is not there yet.

        Raises:
            UsageError: it cannot be done; says why.
        """
        raise UsageError("this method's weights need no conversion; those of a vision-language model take --backbone")

    def remarks(self, config: Settings, captions: Sequence[str]) -> list[str]:
        """Warnings: what a user, and whoever reads the results, should know of the model."""
        return []
