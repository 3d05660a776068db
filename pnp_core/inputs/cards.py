"""Dataset cards: one YAML each in `datasets/`, with everything known of a dataset but its files.

A card names its layout in path templates (``{id}``, ``{split}``), so a dataset of a known layout
needs a YAML and no code. The readers are in `pnp_core.inputs.readers`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from pnp_core.bundled import PACKAGE
from pnp_core.data import IGNORE, MAX_LABEL
from pnp_core.errors import UnknownNameError, UsageError
from pnp_core.frozen import Config, merge
from pnp_core.text.files import text_of

SCHEMA_FILE = "card.schema.json"
Words = Literal["natural", "authors"]
"""How captions call classes: see `DatasetCard.captions_in`."""


class ClassEntry(Config):
    """One class of a dataset."""

    name: str = Field(min_length=1)
    """The dataset's own name, used in tables and masks."""
    id: int | None = Field(default=None, ge=0)
    """The dataset's official number, where that is not the position in the list."""
    caption: str | None = None
    """The name as a caption says it ("tv monitor" for tvmonitor); the name itself when empty."""
    authors: str | None = None
    """The name as the captions of the PnP-OVSS authors' code say it; as `caption` when empty."""
    synonyms: tuple[str, ...] = ()
    """Other names under which files of image-level labels may know it."""


def _entry(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Split(Config):
    """A part of a dataset."""

    images: int | None = Field(default=None, ge=1)
    """How many pictures it officially has."""
    list: str | None = None
    """Text file with one id per line; without it the ground truth files are the list."""
    folder: str | None = None
    """What `{split}` stands for in paths; the split's name when empty."""


class TruthForm(Config):
    """A form in which the masks of a dataset come."""

    drawn: ClassVar[bool] = False
    """Whether images and masks are drawn by the package: no folder is needed, and classes are known without masks."""


class LabelMapFiles(TruthForm):
    """Ground truth as one palette or grey PNG per picture."""

    kind: Literal["label-maps"]
    name: str
    path: str = Field(pattern=r"\{id\}[^/]*$")
    """Template of the file name with `{id}`, and `{split}`."""
    values: Literal["positions", "ids"] = "positions"
    """What pixel values count: the position in the class list, or the classes' official ids."""
    offset: int = 0
    """Added to a pixel value to get the position or id."""
    ignore: tuple[int, ...] = (IGNORE,)
    """Pixel values that are not scored (void), before the offset. In files of 16 bits it is 65535 where nothing else is
    said, and 255 where that is no class."""
    others: Literal["refuse", "background"] = "refuse"
    """Values that stand for no class: an error in the file, or background."""


class InstanceFile(TruthForm):
    """Ground truth painted from a COCO annotation file, crowd regions included."""

    kind: Literal["coco-instances"]
    name: str
    path: str


class DrawnScenes(TruthForm):
    """The bundled scenes, drawn together with their masks."""

    drawn: ClassVar[bool] = True

    kind: Literal["scenes"]
    name: str


GroundTruth = Annotated[LabelMapFiles | InstanceFile | DrawnScenes, Field(discriminator="kind")]


class BoxFiles(Config):
    """Detection labels, from which image-level labels can be taken."""

    kind: Literal["voc-xml", "coco-json"]
    path: str


class DatasetCard(Config):
    """What is known of a dataset without looking at its files."""

    name: str
    version: int
    """Goes up when the protocol or the classes change."""
    title: str
    task: Literal["object", "scene"]
    """Object data get a background channel, scene data only with few candidate classes."""
    background: bool
    """Whether label 0 is a scored class. Without it pixels of no class are not scored."""
    number_of_classes: int | None = None
    """Classes that are scored, background counted when it is one; a check against slips in the list."""
    splits: dict[str, Split] = Field(min_length=1)
    """The first is the default."""
    tuning_split: str | None = None
    """The split that `tune` takes its pictures from; the default one when empty."""
    images: tuple[Annotated[str, Field(pattern=r"\{id\}[^/]*$")], ...] = ()
    """Templates of the picture files; the first whose folder exists. The ending may be `*`."""
    ground_truth: tuple[GroundTruth, ...] = Field(min_length=1)
    """Forms in which the masks are distributed; the first that is on disk."""
    boxes: BoxFiles | None = None
    root: str = ""
    """What --data must point at, for people."""
    homepage: str = ""
    terms: str
    citation: str = ""
    palette: Literal["voc"] | tuple[Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")], ...] = "voc"
    """Colours of the labels 0, 1 ... in masks: the Pascal VOC colour map, or a list of #rrggbb."""
    classes: tuple[Annotated[ClassEntry, BeforeValidator(_entry)], ...] = Field(default=(), max_length=MAX_LABEL)
    """In label order, from label 1."""
    classes_file: str | None = None
    """Text file in the data folder with one class name per line, in place of `classes`."""

    subsets: dict[Annotated[str, Field(pattern="^[a-z0-9-]+$")], tuple[str, ...]] = {}
    """Named sets of classes that tables score by themselves, such as the classes other methods hold out."""

    @model_validator(mode="after")
    def _consistent(self) -> DatasetCard:
        if bool(self.classes) == bool(self.classes_file):
            raise ValueError("a card has either classes or a classes_file")
        lists: list[tuple[str, list[Any]]] = [
            ("class name", [c.name.lower() for c in self.classes]),
            ("caption", [name.lower() for name in self.captions]),
            ("class id", [c.id for c in self.classes if c.id is not None]),
            ("ground truth", [g.name for g in self.ground_truth]),
        ]
        for what, values in lists:
            twice = {value for value, number in Counter(values).items() if number > 1}
            if twice:
                raise ValueError(f"{what} given twice: {', '.join(map(str, sorted(twice)))}")
        if self.tuning_split is not None and self.tuning_split not in self.splits:
            raise ValueError(f"tuning_split '{self.tuning_split}' is none of the splits")
        if 0 < sum(c.id is not None for c in self.classes) < len(self.classes):
            raise ValueError("either every class has an id or none")
        if self.background and "background" in (c.name.lower() for c in self.classes):
            raise ValueError("background is label 0 already; leave it out of the classes")
        if self.number_of_classes is not None and self.number_of_classes != len(self.classes) + self.background:
            raise ValueError(
                f"number_of_classes is {self.number_of_classes}, but there are {len(self.classes)} classes"
                f"{' and background' if self.background else ''}"
            )
        strangers = {name for names in self.subsets.values() for name in names} - {c.name for c in self.classes}
        if strangers and self.classes:
            raise ValueError(f"subsets name classes that are not there: {', '.join(sorted(strangers))}")
        return self

    def __hash__(self) -> int:
        return hash((self.name, self.version, self.classes))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> DatasetCard:
        """As pydantic's, but what was worked out of the former classes does not come along."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - DatasetCard.model_fields.keys():
            object.__delattr__(copied, name)
        return copied

    def facts(self) -> dict[str, Any]:
        """What the pictures and their labels depend on."""
        return self.model_dump(exclude={"subsets": True, "classes": {"__all__": {"authors"}}})

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Class names, from label 1."""
        return tuple(c.name for c in self.classes)

    @cached_property
    def captions(self) -> tuple[str, ...]:
        """Class names as captions say them, from label 1."""
        return tuple(c.caption or c.name for c in self.classes)

    @cached_property
    def _authors_captions(self) -> tuple[str, ...]:
        return tuple(c.authors or natural for c, natural in zip(self.classes, self.captions, strict=True))

    def captions_in(self, words: Words) -> tuple[str, ...]:
        """Class names as captions say them, from label 1: in natural words, or in those of the authors' code, of which
        two may be the same.
        """
        return self._authors_captions if words == "authors" else self.captions

    @property
    def renamed(self) -> int:
        """Classes that the authors' code calls otherwise."""
        return sum(a != b for a, b in zip(self.captions_in("authors"), self.captions, strict=True))

    @property
    def default_split(self) -> str:
        """The split that is evaluated when none is named."""
        return next(iter(self.splits))

    @property
    def drawn(self) -> bool:
        """Whether the images are drawn by the package; otherwise they are read from a folder."""
        return self.ground_truth[0].drawn

    def folder_of(self, split: str) -> str:
        """What `{split}` stands for in the card's paths."""
        return self.splits[split].folder or split

    def images_of(self, split: str | None) -> int | None:
        """How many pictures a split officially has, the default one when None; None where the card does not say."""
        part = self.splits.get(split or self.default_split)
        return part.images if part else None

    @property
    def background_rule(self) -> Literal["always", "few", "never"]:
        """How `masks.background: auto` reads: a scored background needs its channel; where it is not
        scored, it could only take pixels from objects (object data), or is for pictures with few
        candidates (scene data, ALGORITHM section 4).
        """
        if self.background:
            return "always"
        return "never" if self.task == "object" else "few"

    @cached_property
    def label_of(self) -> dict[int, int]:
        """Official id -> label; the position where a class has no id of its own."""
        return {entry.id if entry.id is not None else i: i for i, entry in enumerate(self.classes, start=1)}

    @cached_property
    def label_of_name(self) -> dict[str, int]:
        """Lower-case name, caption or synonym -> label."""
        labels: dict[str, int] = {}
        for spelling in ("synonyms", "caption", "name"):  # the name wins over another class's synonym
            for label, entry in enumerate(self.classes, start=1):
                values = getattr(entry, spelling) or ()
                for value in (values,) if isinstance(values, str) else values:
                    labels[value.lower()] = label
        return labels

    def with_classes(self, names: tuple[str | dict[str, Any], ...]) -> DatasetCard:
        """The card with classes that were read from a file or given by a user.

        Args:
            names: of them, or values of their `ClassEntry`.

        Raises:
            UsageError: too many, or they do not go with the rest of the card, such as its subsets.
        """
        values = self.model_dump(exclude={"classes", "classes_file", "number_of_classes"})
        count = len(names) + self.background
        try:
            return DatasetCard.model_validate({**values, "classes": names, "number_of_classes": count})
        except ValidationError as error:
            raise UsageError(f"dataset {self.name} with {len(names)} classes: {first_fault(error)}") from error

    def labels(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """Labels of some classes, in label order; `background` is 0 where it is scored.

        Raises:
            UnknownNameError: no such class.
        """
        chosen = set()
        for name in names:
            known = {**self.label_of_name, **({"background": 0} if self.background else {})}
            if name.lower() not in known:
                raise UnknownNameError(f"class of dataset {self.name}", name, known)
            chosen.add(known[name.lower()])
        return tuple(sorted(chosen))


def _folders() -> list[Path]:
    # The installed copy first: "datasets" in a checkout could be shadowed in site-packages.
    return [PACKAGE / "_cards", PACKAGE.parent / "datasets"]


def available_cards() -> dict[str, Path]:
    """Name -> file of every card."""
    folder = next(f for f in _folders() if f.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _card_file(name: str) -> Path:
    cards = available_cards()
    if name.endswith((".yaml", ".yml")):
        return Path(name).expanduser()
    if name not in cards:
        raise UnknownNameError("dataset", name, cards)
    return cards[name]


def _check_base(base: Any, path: Path) -> None:
    if base not in available_cards() or available_cards()[base] == path:
        raise UnknownNameError("dataset (in `extends`)", str(base), available_cards())


def _mapping(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text_of(path.read_bytes()))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read dataset card '{path}': {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UsageError(f"dataset card '{path}' must be a mapping; see datasets/voc21.yaml for an example")
    return values


def _read_card(path: Path) -> dict[str, Any]:
    values = _mapping(path)
    base = values.pop("extends", None)
    if base is None:
        return values
    _check_base(base, path)
    inherited = _read_card(available_cards()[base])
    if "classes" in values or "classes_file" in values:
        inherited.pop("subsets", None)  # of classes that may be others now
    return merge(inherited, values)


def lineage(name: str) -> tuple[str, ...]:
    """The names of a card and of those that it extends, the nearest first; of a card file only the latter.

    Raises:
        UnknownNameError: no such dataset.
        UsageError: a file is not a card.

    >>> lineage("voc20"), lineage("scenes")
    (('voc20', 'voc21'), ('scenes',))
    """
    path = _card_file(name)
    base = _mapping(path).get("extends")
    own = (name,) if name in available_cards() else ()
    if base is None:
        return own
    _check_base(base, path)
    return (*own, *lineage(base))


def load_card(name: str) -> DatasetCard:
    """Read a card by name, or from a YAML file of the user's own.

    Raises:
        UnknownNameError: no such dataset.
        UsageError: the file is not a card.
    """
    path = _card_file(name)
    try:
        return DatasetCard.model_validate(_read_card(path))
    except ValidationError as error:
        raise UsageError(f"dataset card '{path}': {first_fault(error)}") from error


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong with a card, and where on it."""
    first = error.errors()[0]
    entry = ".".join(str(part) for part in first["loc"])
    return f"{entry + ': ' if entry else ''}{first['msg']}"


def card_schema() -> dict[str, Any]:
    """JSON schema of a card file, for editors and tests."""
    schema = DatasetCard.model_json_schema()
    entry = schema["properties"]["classes"]["items"]
    # A class may be written as its bare name, and a card may take values from another one.
    schema["properties"]["classes"]["items"] = {"anyOf": [{"type": "string"}, entry]}
    schema["properties"]["extends"] = {"type": "string", "description": "Card to take all other values from."}
    schema["required"] = ["name", "version", "title"]
    return schema
