"""Files of classes: one per line, CSV, YAML or a dataset card; see docs/classes.md."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue

from pnp_core.data import MAX_LABEL
from pnp_core.errors import ClassNameError, UsageError
from pnp_core.inputs.cards import DatasetCard, load_card
from pnp_core.inputs.own_classes import (
    BACKGROUND,
    KEYS,
    AnyClass,
    OwnClass,
    class_of,
    named,
    require_distinct,
)
from pnp_core.text.files import text_of

ENDINGS = (".txt", ".csv", ".yaml", ".yml")
CARD = "@"
"""Before the name of a dataset card, whose classes are meant."""
MOST_BYTES = 16 * 2**20
_BETWEEN_PROMPTS = re.compile("[,;|]")
_SEPARATORS = (",", ";", "\t")
_NAMES = ("name", "label")
_COLUMNS = (*KEYS, "label", "prompt", "color")
_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")
_OF_CARDS = {*DatasetCard.model_fields, "extends"}
_SAME_ON_CARDS = {"caption": "prompts"}
_NOT_ASKED = ("synonyms", "authors")
"""What cards say of a class beside that."""
Entry = tuple[str, Any]
"""Where a class stands, and what stands there."""


def classes_of(value: Any) -> Any:
    """Classes as a person gives them: names, mappings, a file, or the name of a card behind `@`.

    Returns:
        Each class by its name alone where nothing else is said of it. What is nothing of the kind is given back.

    Raises:
        ClassNameError: a file is missing or of no such form, or a class cannot be; says where and what.
        UnknownNameError: there is no such card.
    """
    if isinstance(value, os.PathLike) or (isinstance(value, str) and is_file(value)):
        value = [os.fspath(value)]
    if not isinstance(value, list | tuple) or not all(isinstance(one, str | Mapping | OwnClass) for one in value):
        return value
    if len(value) == 1 and isinstance(value[0], str) and is_file(value[0]):
        whole = _whole(value[0])
        entries = _of_card(value[0]) if value[0].startswith(CARD) else _of_file(value[0])
    elif all(isinstance(one, str) for one in value):
        _refuse_files(value)
        return tuple(value)  # whoever plans with them says what is wrong with names
    else:
        whole, entries = "classes", ((f"classes, entry {n}", one) for n, one in enumerate(value, 1))
    if len(listed := list(entries)) > MAX_LABEL:
        raise ClassNameError(f"{whole}: {len(listed)} classes are too many, {MAX_LABEL} at most")
    classes = [(where, own) for where, one in listed for own in class_of(one, where)]
    require_distinct(classes, whole)
    plain = tuple(own.name if own == OwnClass(name=own.name) else own for _, own in classes)
    # One class that is called like a file stays a class when it is read again.
    return tuple(own for _, own in classes) if len(plain) == 1 and is_file(classes[0][1].name) else plain


class _OrPlace:
    """The JSON schema of a list of classes, in whose place a file may be named."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(core), {"type": "string"}]}


Classes = Annotated[tuple[AnyClass, ...], BeforeValidator(classes_of), _OrPlace()]
"""Classes of a configuration: whatever `classes_of` takes."""


def is_file(text: str) -> bool:
    """Whether a text given for classes means a file, or a card.

    >>> [is_file(text) for text in ("cat", "cat.yaml", "./names", "@voc21")]
    [False, True, True, True]
    """
    return text.lower().endswith(ENDINGS) or "/" in text or os.sep in text or text.startswith(CARD)


def _refuse_files(names: Sequence[str]) -> None:
    """Names that stand beside others are names, but nobody calls a class `pets.txt`."""
    odd = [name for name in names if name.lower().endswith(ENDINGS) or name.startswith(CARD)]
    if odd and len(names) > 1:
        raise ClassNameError(f"'{odd[0]}' is a file or card of classes, and stands among names: give it alone")


def _whole(text: str) -> str:
    """What classes stand in, for people."""
    return f"dataset {text.removeprefix(CARD)}" if text.startswith(CARD) else f"class file '{text}'"


def _of_card(text: str) -> Iterator[Entry]:
    card = load_card(text.removeprefix(CARD))
    if not card.classes:
        raise ClassNameError(f"dataset {card.name} has its classes in a file of its folder: give that file")
    colours = card.palette[1:] if card.palette != "voc" else ()
    for label, entry in enumerate(card.classes, 1):
        values = {"name": entry.name, "prompts": entry.caption, "id": entry.id}
        colour = {"colour": colours[label - 1]} if label <= len(colours) else {}
        yield f"{_whole(text)}, class {label}", values | colour


def _of_file(url: str) -> Iterator[Entry]:
    """What stands in a file, entry by entry."""
    whole = _whole(url)
    try:
        text = text_of(_read(url, whole))
    except ValueError as error:
        raise ClassNameError(f"{whole} {error}") from error
    ending = url.lower().rpartition(".")[2]
    if ending == "csv":
        return _of_csv(text, whole)
    return _coloured(_of_yaml(text, whole)) if ending in ("yaml", "yml") else _of_lines(text, whole)


def _read(url: str, whole: str) -> bytes:
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url if "://" in url else str(Path(url).expanduser()))
        if fs.isdir(path):
            raise ClassNameError(f"{whole} is a folder; name a file in it")
        with fs.open(path, "rb") as opened:
            data: bytes = opened.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise ClassNameError(
            f"{whole} does not exist; a class that is called so is given with -p: 'classes=[{{name: ...}}]'"
        ) from error
    except (OSError, ValueError, ImportError) as error:
        raise ClassNameError(f"{whole} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MOST_BYTES:
        raise ClassNameError(f"{whole} has over {MOST_BYTES // 2**20} MiB: it is no list of classes")
    return data


def _of_lines(text: str, whole: str) -> Iterator[Entry]:
    """`name`, or `name: prompt, prompt`; a line that begins with # says nothing."""
    for number, line in enumerate(re.split("\r\n|\r|\n", text), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            where, (name, colon, prompts) = f"{whole}, line {number}", line.partition(":")
            if prompts.startswith("//"):
                raise ClassNameError(f"{where}: '{line.strip()[:60]}' is an address, no class with its prompts")
            if colon and not prompts.strip():
                raise ClassNameError(f"{where}: there is no prompt behind '{name.strip()}:'; leave out the colon")
            yield where, {"name": name, "prompts": _parted(prompts) if colon else None}


def _parted(prompts: str) -> list[str]:
    return _BETWEEN_PROMPTS.split(prompts)


def _of_csv(text: str, whole: str) -> Iterator[Entry]:
    """A row for each class, under a row of column names."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    if not first:
        return
    separator = max(_SEPARATORS, key=lambda one: len(set(_header(first, one)) & set(_COLUMNS)))
    rows = csv.reader(io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=separator, strict=True)
    skipped = len(text[: len(text) - len(text.lstrip("\r\n"))].splitlines())
    try:
        header = [column.strip().lower() for column in next(rows)]
        _check_header(header, whole)
        for row in rows:
            if any(cell.strip() for cell in row):
                where = f"{whole}, line {rows.line_num + skipped}"
                yield where, _of_row(dict(zip(header, _fitting(row, header, where), strict=True)), where)
    except csv.Error as error:
        raise ClassNameError(f"{whole}, line {rows.line_num + skipped} is no CSV: {error}") from error


def _header(line: str, separator: str) -> list[str]:
    return [cell.strip().strip('"').lower() for cell in line.split(separator)]


def _check_header(header: list[str], whole: str) -> None:
    if not set(header) & set(_NAMES):
        raise ClassNameError(f"{whole} has no column name (or label); its first line is {', '.join(header)[:80]}")
    if odd := next((column for column in header if column not in _COLUMNS), None):
        raise ClassNameError(f"{whole}: unknown column '{odd}'; there may be {named(KEYS)}")
    if len(set(header)) < len(header):
        twice = next(column for column in header if header.count(column) > 1)
        raise ClassNameError(f"{whole} has the column '{twice}' twice")


def _fitting(row: list[str], header: list[str], where: str) -> list[str]:
    """A row's cells, of which those at the end that are empty may be missing or too many."""
    cells = row + [""] * (len(header) - len(row))
    if any(cell.strip() for cell in cells[len(header) :]):
        raise ClassNameError(f"{where}: {len(row)} cells under {len(header)} columns; put a cell with commas in quotes")
    return cells[: len(header)]


def _of_row(row: dict[str, str], where: str) -> dict[str, Any]:
    values: dict[str, Any] = {key: cell.strip() for key, cell in row.items() if cell.strip() or key in _NAMES}
    for key in ("prompts", "prompt"):
        if key in values:
            values[key] = _parted(values[key])
    if "id" in values and re.fullmatch("[+-]?[0-9]{1,20}", values["id"]):
        values["id"] = int(values["id"])
    if "background" in values:
        said = values["background"].lower()
        if said not in _YES + _NO:
            raise ClassNameError(f"{where}: background is yes or no, not '{said[:40]}'")
        values["background"] = said in _YES
    return values


def _of_yaml(text: str, whole: str) -> Iterator[Entry]:
    """A list of classes; a mapping from names to prompts; or a mapping with `classes`, such as a dataset card."""
    values = _yaml(text, whole)
    if values is None:
        return
    if isinstance(values, Mapping) and ("classes" in values or "extends" in values or "classes_file" in values):
        yield from _of_card_file(values, whole)
    elif isinstance(values, list):
        yield from ((f"{whole}, class {n}", one) for n, one in enumerate(values, 1))
    elif isinstance(values, Mapping):
        for n, (name, inner) in enumerate(values.items(), 1):
            yield f"{whole}, class {n}", _of_pair(name, inner, f"{whole}, class {n}")
    else:
        raise ClassNameError(f"{whole} is neither a list of classes nor a mapping from names to prompts")


def _coloured(entries: Iterator[Entry]) -> Iterator[Entry]:
    """What is behind `colour: #ff8800` without quotes is a comment, and the colour nothing."""
    for where, entry in entries:
        if isinstance(entry, Mapping) and any(key in entry and entry[key] is None for key in ("colour", "color")):
            raise ClassNameError(
                f"{where}: the colour is empty; in YAML it stands in quotes, '#ff8800', or is a comment"
            )
        yield where, entry


def _of_pair(name: Any, inner: Any, where: str) -> dict[Any, Any]:
    if isinstance(inner, Mapping):
        if odd := next((key for key in inner if key in _NAMES), None):
            raise ClassNameError(f"{where}: '{name}' has another {odd} below it; leave one out")
        return {"name": name, **inner}
    return {"name": name, "prompts": inner}


def _of_card_file(values: Mapping[Any, Any], whole: str) -> Iterator[Entry]:
    """The classes of a card, whose masks need not be there; `background` may be a list of queries."""
    if odd := next((key for key in values if key not in _OF_CARDS), None):
        raise ClassNameError(
            f"{whole}: unknown key {str(odd)[:40]!r}; beside classes there may be what a dataset card has"
        )
    if "classes" not in values:
        if "extends" not in values:
            raise ClassNameError(f"{whole} has its classes in '{values['classes_file']}': give that file")
        yield from _of_card(f"{CARD}{values['extends']}")
    else:
        yield from _listed(values["classes"], values.get("palette"), whole)
    queries = values.get(BACKGROUND)
    if queries is not None and not isinstance(queries, bool):  # a card says whether it is scored
        yield f"{whole}, background", {"name": BACKGROUND, "prompts": queries}


def _listed(classes: Any, palette: Any, whole: str) -> Iterator[Entry]:
    if not isinstance(classes, list):
        raise ClassNameError(f"{whole}: classes are a list of names or mappings")
    colours = palette[1:] if isinstance(palette, list) else []
    for n, one in enumerate(classes, 1):
        entry: Any = {"name": one} if isinstance(one, str) else one
        if isinstance(entry, Mapping):
            if "caption" in entry and {"prompts", "prompt"} & set(entry):
                raise ClassNameError(f"{whole}, class {n}: caption and prompts are one thing; leave one out")
            entry = {_SAME_ON_CARDS.get(key, key): v for key, v in entry.items() if key not in _NOT_ASKED}
            if n <= len(colours) and not {"colour", "color"} & set(entry):
                entry["colour"] = colours[n - 1]
        yield f"{whole}, class {n}", entry


def _yaml(text: str, whole: str) -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):
        """YAML itself keeps the last of repeated keys without a word."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key.value, str) and key.value in seen:
                    raise UsageError(f"line {key.start_mark.line + 1}: '{key.value}' is given twice")
                seen.add(str(key.value))
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)  # noqa: S506  # it is the safe one
    except UsageError as error:
        raise ClassNameError(f"{whole}, {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ClassNameError(f"{whole} is no YAML: {' '.join(str(error).split())[:300]}") from error
