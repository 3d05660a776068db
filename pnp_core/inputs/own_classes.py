"""Classes as people bring them: names, or a file that says what each is asked by, and its value and colour in masks.

`pnp_core.inputs.class_files` reads the files; here is what one class is, and what a list of them comes to.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from pnp_core.data import MAX_LABEL
from pnp_core.errors import ClassNameError
from pnp_core.frozen import Config
from pnp_core.inputs.class_names import clean_class_names
from pnp_core.text.visible import visible

BACKGROUND = "background"
MOST_PROMPT = 300
"""Characters of a prompt at most: the longest context of a text encoder here is 77 tokens."""
_SPELLINGS = {"label": "name", "prompt": "prompts", "color": "colour"}
_COLOUR = re.compile("#[0-9a-fA-F]{6}")


class OwnClass(Config):
    """A class of a person's own."""

    name: str = Field(min_length=1)
    """What it is called in tables, reports and exports."""
    prompts: tuple[str, ...] = ()
    """What it is asked by, of which the best counts; its name when empty."""
    id: int | None = Field(default=None, ge=1, le=MAX_LABEL)
    """Its value in masks; when empty its place among the classes."""
    colour: str | None = None
    """#rrggbb in masks and reports; when empty that of the Pascal VOC colour map."""
    background: bool = False
    """A query that claims pixels, which then are background (0)."""

    @property
    def asked_by(self) -> tuple[str, ...]:
        """Its prompts, or its name."""
        return self.prompts or (self.name,)


AnyClass = str | OwnClass
"""A class, by its name alone where nothing else is said of it."""
KEYS = tuple(OwnClass.model_fields)


def named(keys: Iterable[str]) -> str:
    """Names for people: `name, prompts or id`."""
    *first, last = keys
    return f"{', '.join(first)} or {last}" if first else last


def class_of(value: Any, where: str) -> list[OwnClass]:
    """The class that a text or mapping is of; of `background` with prompts as many queries.

    Args:
        where: it stands, for an error.

    Raises:
        ClassNameError: it is none, or something of it cannot be; says what.
    """
    if isinstance(value, OwnClass):
        return [value]
    values = _spelled(value, where)
    name, prompts = _text(values.get("name"), "name", where), _prompts(values.get("prompts"), where)
    if name.lower() == BACKGROUND:
        return _queries(values, prompts, where)
    for prompt in prompts or (name,):
        _require_readable(prompt, f"{where}: class '{name[:60]}'")
    own = OwnClass(
        name=name,
        prompts=() if prompts == (name,) else prompts,
        id=_id(values.get("id"), where),
        colour=_colour(values.get("colour"), where),
        background=_flag(values.get("background"), where),
    )
    if own.background and own.id is not None:
        raise ClassNameError(f"{where}: '{name}' is a background query, which becomes 0: leave out its id")
    return [own]


def _spelled(value: Any, where: str) -> dict[str, Any]:
    """A mapping with our names of the keys."""
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping):
        raise ClassNameError(f"{where}: {_shown(value)} is no class: a name, or a mapping with {named(KEYS)}")
    values: dict[str, Any] = {}
    for key, inner in value.items():
        own = _SPELLINGS.get(key, key) if isinstance(key, str) else key
        if own not in KEYS:
            raise ClassNameError(f"{where}: unknown key {_shown(key)}; a class has {named(KEYS)}")
        if own in values:
            raise ClassNameError(f"{where}: {own} is given twice, as {named(k for k in value if _is(k, own))}")
        values[own] = inner
    if "name" not in values:
        raise ClassNameError(f"{where}: the class has no name; give its name (or label)")
    return values


def _is(key: Any, own: str) -> bool:
    return _SPELLINGS.get(key, key) == own


def _queries(values: dict[str, Any], prompts: tuple[str, ...], where: str) -> list[OwnClass]:
    """What stands under the name `background`: each prompt claims pixels by itself."""
    if not prompts:
        raise ClassNameError(
            f"{where}: 'background' is label 0 already; leave it out, or give it prompts (background: sky, wall) that "
            f"claim pixels, which become 0"
        )
    if odd := next((key for key in ("id", "colour") if values.get(key) is not None), None):
        raise ClassNameError(f"{where}: background is label 0 and black: leave out its {odd}")
    for prompt in prompts:
        _require_readable(prompt, f"{where}: background")
    return [OwnClass(name=prompt, background=True) for prompt in prompts]


def _text(value: Any, what: str, where: str) -> str:
    """A name or prompt, its spaces put in order."""
    if not isinstance(value, str):
        raise ClassNameError(f"{where}: the {what} {_shown(value)} is no text; write it in quotes")
    if visible(value) != value and (odd := next((c for c in value if c != "\t" and visible(c) != c), None)):
        raise ClassNameError(f"{where}: the {what} holds the control character U+{ord(odd):04X}; take it out")
    text = " ".join(value.split())
    if not text:
        raise ClassNameError(f"{where}: the {what} is empty")
    return text


def _prompts(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        raise ClassNameError(f"{where}: prompts are a text or a list of texts, not {_shown(value)}")
    return tuple(dict.fromkeys(_text(text, "prompt", where) for text in texts))


def _require_readable(prompt: str, whose: str) -> None:
    """Refuse what leaves a tokenizer nothing, or more than any reads; what a model makes of the rest it says itself."""
    if not any(unicodedata.category(c)[0] in "LN" or unicodedata.category(c) == "So" for c in prompt):
        raise ClassNameError(f"{whose} has a prompt that no tokenizer reads, without letter or number: '{prompt[:60]}'")
    if len(prompt) > MOST_PROMPT:
        raise ClassNameError(
            f"{whose} has a prompt of {len(prompt)} characters, more than text encoders read: '{prompt[:40]}...'; "
            f"{MOST_PROMPT} at most"
        )


def _id(value: Any, where: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ClassNameError(f"{where}: the id {_shown(value)} is no integer; ids are 1 to {MAX_LABEL}")
    if value == 0:
        raise ClassNameError(f"{where}: the id 0 is background; ids are 1 to {MAX_LABEL}")
    if not 0 < value <= MAX_LABEL:
        void = ", and 65535 is void" if value == MAX_LABEL + 1 else ""
        raise ClassNameError(f"{where}: the id {value} fits no mask{void}; ids are 1 to {MAX_LABEL}")
    return value


def _colour(value: Any, where: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and _COLOUR.fullmatch(value.strip()):
        return value.strip().lower()
    raise ClassNameError(f"{where}: the colour {_shown(value)} is not of the form '#ff8800'")


def _flag(value: Any, where: str) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise ClassNameError(f"{where}: background is true or false, not {_shown(value)}")


def _shown(value: Any) -> str:
    return repr(value)[:60]


def require_distinct(classes: Sequence[tuple[str, OwnClass]], whole: str) -> None:
    """Find out whether classes can stand beside each other.

    Args:
        classes: each with where it stands.
        whole: what they stand in, for an error.

    Raises:
        ClassNameError: a name, id or prompt is given twice, some classes have an id and others none, there are none but
            background queries.
    """
    seen: dict[tuple[str, Any], str] = {}
    for where, own in classes:
        for what, value in _distinct(own):
            key = (what, value.lower() if isinstance(value, str) else value)
            if key in seen:
                raise ClassNameError(f"{where}: {what} '{value}' is given twice, before it in {seen[key]}")
            seen[key] = where.removeprefix(f"{whole}, ")
    own_classes = [(where, own) for where, own in classes if not own.background]
    if not own_classes:
        raise ClassNameError(f"{whole}: there is no class{' but background queries' if classes else ' in it'}")
    without = [(where, own) for where, own in own_classes if own.id is None]
    if 0 < len(without) < len(own_classes):
        where, own = without[0]
        raise ClassNameError(f"{where}: '{own.name}' has no id, and others have; give all of them ids, or none")


def _distinct(own: OwnClass) -> Iterable[tuple[str, Any]]:
    """What no two classes may share. A name is no prompt where there are others."""
    yield "class", own.name
    yield from (("prompt", prompt) for prompt in own.asked_by)
    if own.id is not None:
        yield "id", own.id


@dataclass(frozen=True)
class Vocabulary:
    """What a list of classes comes to.

    Attributes:
        names: of the labels 1, 2 ...
        prompts: what each is asked by.
        ids: what each becomes in masks, 0 of background queries; None where that is the label itself.
        colours: #rrggbb of each, None where nothing is said.
    """

    names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    ids: tuple[int, ...] | None
    colours: tuple[str | None, ...]

    @property
    def entries(self) -> tuple[str | dict[str, Any], ...]:
        """The classes as a dataset card has them; the first prompt is how captions say it."""
        return tuple(
            name if prompts == (name,) else {"name": name, "caption": prompts[0], "synonyms": prompts[1:]}
            for name, prompts in zip(self.names, self.prompts, strict=True)
        )

    @property
    def several_prompts(self) -> tuple[tuple[str, ...], ...]:
        """The prompts, where a class has several; else none."""
        return self.prompts if any(len(own) > 1 for own in self.prompts) else ()


def vocabulary_of(classes: Sequence[AnyClass]) -> Vocabulary:
    """The names, prompts, ids and colours of some classes.

    Raises:
        ClassNameError: a name is empty, `background` or given twice, or there are too many.

    >>> dog = OwnClass(name="dog", prompts=("dog", "pup"))
    >>> own = vocabulary_of(["cat", OwnClass(name="sky", background=True), dog])
    >>> own.ids, own.prompts
    ((1, 0, 2), (('cat',), ('sky',), ('dog', 'pup')))
    """
    given = [OwnClass.model_construct(name=one) if isinstance(one, str) else one for one in classes]
    names = clean_class_names([one.name for one in given])
    ids, place = [], Counter[bool]()
    for one in given:
        place[one.background] += 1
        ids.append(0 if one.background else place[False] if one.id is None else one.id)
    return Vocabulary(
        names=tuple(names),
        prompts=tuple(one.prompts or (name,) for name, one in zip(names, given, strict=True)),
        ids=None if ids == list(range(1, len(ids) + 1)) else tuple(ids),
        colours=tuple(one.colour for one in given),
    )
