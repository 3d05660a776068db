"""Configuration of CaR: two CLIPs, three thresholds, visual prompts, texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from pnp_core.methods.base import Description, MethodConfig, Value
from pnp_core.methods.cards import chosen_for, read_settings
from pnp_core.openclip.config import ClipWeights, Name, Template, weights_named

VisualPrompt = Literal["blur", "gray", "circle"]
Prompts = Annotated[tuple[VisualPrompt, ...], Field(min_length=1)]


def _pairs(value: Any) -> Any:
    """A mapping in a form that can be hashed."""
    return tuple(value.items()) if isinstance(value, Mapping) else value


NameOf = Annotated[
    tuple[tuple[Name, Name], ...],
    BeforeValidator(_pairs, json_schema_input_type=dict[str, str]),
    PlainSerializer(dict, return_type=dict[str, str]),
]

BACKGROUND: tuple[str, ...] = (
    *("ground", "land", "grass", "tree", "building", "wall", "sky", "lake", "water", "river", "sea", "railway"),
    *("railroad", "helmet", "cloud", "house", "mountain", "ocean", "road", "rock", "street", "valley", "bridge"),
)
"""What the released configurations take for none of the classes, of whatever dataset."""
TEMPLATES: tuple[str, ...] = (
    "a clean origami {}.",
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(
        sentence.replace("SIZE", size)
        for size in ("small", "medium", "large")
        for sentence in ("a photo of a SIZE {}.", "This is a photo of a SIZE {}.", "There is a SIZE {} in the scene.")
    ),
)
"""What the classifier is asked with in the released configurations, full stops as they are there."""


class CarConfig(MethodConfig):
    """CaR: one CLIP proposes maps of classes, another drops those that it does not see there, until none is dropped
    (arXiv 2312.07661). The paper calls the thresholds eta (mask), theta (confidence) and lambda (boxes).

    Of the masks' settings `threshold` cuts what is below it from the maps; CaR itself cuts nothing.
    """

    place: ClassVar[str] = "pnp_core.methods.car.method:METHOD"

    name: Literal["car"] = "car"  # pyright: ignore[reportIncompatibleVariableOverride]
    """The method."""
    proposer: ClipWeights = ClipWeights()
    """CLIP whose gradients say where classes are."""
    classifier: ClipWeights = ClipWeights(model="ViT-L-14")
    """CLIP that says whether they are there."""
    names: NameOf = ()
    """What a class is asked by, by the class as captions say it; its own name where none is given."""
    background: Annotated[tuple[Name, ...], Field(min_length=1)] = BACKGROUND
    """Names that stand for what is none of the classes."""
    stuff: tuple[Name, ...] = ()
    """Classes, as captions say them, that are looked for in a pass of their own, whose background are all others.

    The others lie above them."""
    templates: Annotated[tuple[Template, ...], Field(min_length=1)] = TEMPLATES
    """Captions that the classifier is asked with; `{}` stands for the name."""
    proposal_template: Template = "a clean origami {}."
    """Caption that the proposer is asked with; in the first round it is asked by the bare names."""
    mask_threshold: float = Field(default=0.5, ge=0, lt=1)
    """What of a map, which goes from 0 to 1, is shown to the classifier as the class."""
    confidence_threshold: float = Field(default=0.3, ge=0, lt=1)
    """Score that a class is kept above; where there is none the best one is kept."""
    box_threshold: float = Field(default=0.5, ge=0, lt=1)
    """What of a map boxes are laid around, outside of which nothing of it counts."""
    prompts: Prompts = ("blur", "gray")
    """How a class is shown to the classifier: what is outside of it blurred (`blur`) and grey (`gray`), a red line
    around it (`circle`); always in this order."""
    stuff_prompts: Prompts = ("blur", "gray")
    """The same in the pass of `stuff`."""
    skip_last_block: bool = True
    """Take the classifier's features before its last block, as the released code does."""
    max_side: int = Field(default=1024, ge=32, le=2048)
    """Larger pictures are looked at with a longer side of so many pixels, which bounds memory: of P patches it takes
    4 P^2 bytes for each of the proposer's blocks and heads, 1.1 GB of ViT-B-16 for a picture of 4000 x 3000 at 1024
    pixels, 16 times that at 2048."""

    @model_validator(mode="after")
    def _fits_together(self) -> CarConfig:
        for what, given in (("prompts", self.prompts), ("stuff_prompts", self.stuff_prompts)):
            _refuse_twice(what, given)
        _refuse_twice("names for", [name.lower() for name, _ in self.names])
        _refuse_twice("stuff", [name.lower() for name in self.stuff])
        return self

    @classmethod
    def defaults(cls, values: Mapping[str, Any], bundled: str) -> dict[str, Any]:
        """What the authors run on a card, or plain ones; the bundled CLIP for the drawn scenes. Their CRF refines."""
        super().defaults(values, bundled)
        method, masks = dict(chosen_for(__file__, values)), read_settings(__file__)["masks"]
        return {"method": method, "masks": {**masks, **method.pop("masks", {})}}

    @classmethod
    def of_weights(cls, weights: str) -> dict[str, Any]:
        """One CLIP, which proposes and classifies."""
        return {"proposer": weights_named(weights), "classifier": weights_named(weights)}

    @classmethod
    def space(cls) -> dict[str, tuple[Value, ...]]:
        """What of the last maps, in [0, 1], is cut, which may be nothing, and their blur."""
        return super().space() | {"masks.threshold": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)}

    @property
    def plain(self) -> bool:
        """Whether nobody has chosen names and thresholds for these classes."""
        plain = read_settings(__file__)["plain"]
        return not self.names and all(getattr(self, key) == plain[key] for key in plain if key.endswith("_threshold"))

    def describe(self) -> Description:
        """In words."""
        clips = f"{self.proposer.title} + {self.classifier.title}"
        settings = [
            f"eta {self.mask_threshold:g}",
            f"theta {self.confidence_threshold:g}",
            f"lambda {self.box_threshold:g}",
            "+".join(self.prompts),
            f"stuff {'+'.join(self.stuff_prompts)}" if self.stuff else None,
            None if self.skip_last_block else "all blocks",
            f"at most {self.max_side} px",
        ]
        return Description(
            weights=clips,
            model=f"car:{clips}",
            row=f"CaR {clips}, at most {self.max_side} px",
            settings=tuple(text for text in settings if text),
        )

    def setting(self) -> dict[str, Any]:
        """What can change a score."""
        clips = {name: getattr(self, name).model_dump(mode="json") for name in ("proposer", "classifier")}
        return super().setting() | clips


def _refuse_twice(what: str, given: tuple[str, ...] | list[str]) -> None:
    if twice := sorted({one for one in given if given.count(one) > 1}):
        raise ValueError(f"{what} {', '.join(twice)} given twice")
