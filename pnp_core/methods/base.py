"""What a method is: how images and names of classes become scores of every pixel.

Two halves, as the stages have them. The dear one, `LoadedMethod.look`, is run once and its maps are stored; the cheap
one, `Method.decide`, makes scores of stored maps and can be repeated. A method is a room of its own: its configuration
(`MethodConfig`, light, found by name) says where its `Method` is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import numpy as np
from jaxtyping import Float, UInt8

from pnp_core.data import ClassMaps
from pnp_core.errors import UsageError
from pnp_core.frozen import Config, Newer, OfStage, marks
from pnp_core.masks.config import MaskConfig
from pnp_core.masks.label_map import Scores

PNP = "pnp-ovss"
"""The method of runs that name none."""
MAPS, MASKS = "salience", "masks"
"""The stages that a method's settings belong to."""


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """The weights of a method, found and named, but not loaded.

    Attributes:
        revision: names them in fingerprints.
        version: goes up when the same weights give other maps.
    """

    revision: str
    version: int = 1

    @property
    def shape(self) -> dict[str, int] | None:
        """What of the model's make settings can choose among, for records."""
        return None


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
    """Settings of a method. Light: what tables, reports and help texts need is here, without any model."""

    method: ClassVar[str]
    """Place of its `Method`, `module:object`."""
    matches: ClassVar[bool] = False
    """Whether it has a match score of its own, for the source of candidates `itm`."""

    name: Annotated[str, Newer(PNP)]
    """The method."""

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
            name = cls.model_fields["name"].default
            raise UsageError(f"preset '{values['preset']}' is none of {name}'s; leave it out")
        return {}

    @abstractmethod
    def describe(self) -> Description:
        """In words."""

    def facts_of(self, stage: str) -> dict[str, Any]:
        """What names the results of one stage in fingerprints."""
        facts = self.facts()
        return {name: value for name, value in facts.items() if _stage_of(type(self), name) == stage}

    def settled(self, pinned: Pinned) -> MethodConfig:
        """The same with the weights named so that they are these tomorrow and elsewhere."""
        return self


def _stage_of(kind: type[MethodConfig], field: str) -> str:
    return next((mark.stage for mark in marks(kind.model_fields[field]) if isinstance(mark, OfStage)), MAPS)


@dataclass(frozen=True)
class Seen:
    """What a method saw in one image.

    Attributes:
        maps: (K, C, gh, gw) float32, passes or windows x asked class x patch grid.
        match: (C,) float32, probability in [0, 1] that the class is there; None where the method has none.
    """

    maps: Float[np.ndarray, "K C gh gw"]
    match: Float[np.ndarray, " C"] | None = None


class LoadedMethod(ABC):
    """A method with its model loaded."""

    numbers: str = "the model's numbers overflow"
    """Why what it says may not be finite, for people."""

    @abstractmethod
    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        """What the model needs of an image; called on the decoding threads."""

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
        raise NotImplementedError

    def check(self, labels: tuple[int, ...]) -> None:  # noqa: B027 - most models can be asked about anything
        """Find out whether the model can be asked about some classes.

        Raises:
            UsageError: it cannot read a name.
        """


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
    def load(self, config: Settings, pinned: Weights, captions: tuple[str, ...], device: str) -> LoadedMethod:
        """Load the model.

        Args:
            captions: the classes as captions say them, from label 1.
            device: `auto`, `cpu`, `cuda:1` ...

        Raises:
            UsageError: the weights do not fit.
        """

    @abstractmethod
    def decide(self, config: Settings, masks: MaskConfig, maps: ClassMaps, size: tuple[int, int]) -> Scores:
        """Scores of one image's stored maps at a size (H, W) in pixels, ready for refinement and argmax.

        Args:
            masks: with `background` other than `auto`.
            maps: of at least one class.
        """

    def askable(self, config: Settings, captions: Mapping[int, str]) -> tuple[int, ...]:
        """Labels that the model can be asked about, of those that somebody wants to ask about.

        Args:
            captions: the classes as captions say them, by label.

        Raises:
            UsageError: there is none.
        """
        return tuple(captions)

    def remarks(self, config: Settings, captions: Sequence[str]) -> list[str]:
        """Warnings: what a user, and whoever reads the results, should know of the model."""
        return []
