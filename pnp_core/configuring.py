"""A configuration of what a person gave; what is wrong with it in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from pnp_core.errors import UsageError
from pnp_core.frozen import Config

SomeConfig = TypeVar("SomeConfig", bound=Config)


def build(model: type[SomeConfig], values: dict[str, Any]) -> SomeConfig:
    """A configuration from what a user gave.

    Raises:
        UsageError: it is not valid; says where, in one line.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        keys = keys_of(model.model_json_schema())
        if first["type"] == "extra_forbidden":
            raise unknown_key(_place(first["loc"][:-1], keys, str(first["loc"][-1])), keys) from error
        place, message = _place(first["loc"], keys), first["msg"].removeprefix("Value error, ")
        raise UsageError(f"configuration: {place + ': ' if place else ''}{message}") from error


def _place(parts: Sequence[int | str], keys: Sequence[str], *more: str) -> str:
    """Where in a configuration; of a value that may be of several types, pydantic names the type too."""
    place: list[str] = []
    for part in parts:
        if isinstance(part, int) or ".".join((*place, part)) in keys:
            place.append(str(part))
    return ".".join((*place, *more))


def keys_of(schema: dict[str, Any]) -> list[str]:
    """The dotted keys that a JSON schema has, those of every form that a part may have.

    >>> keys_of({"properties": {"a": {"$ref": "#/$defs/A"}, "b": {}}, "$defs": {"A": {"properties": {"x": {}}}}})
    ['a', 'a.x', 'b']
    """

    def walk(part: dict[str, Any], below: str) -> Iterator[str]:
        if "$ref" in part:
            target: Any = schema
            for name in part["$ref"].removeprefix("#/").split("/"):
                target = target[name]
            yield from walk(target, below)
        for form in (*part.get("anyOf", ()), *part.get("oneOf", ()), *part.get("allOf", ())):
            yield from walk(form, below)
        for name, inner in part.get("properties", {}).items():
            yield below + name
            yield from walk(inner, f"{below}{name}.")

    return list(dict.fromkeys(walk(schema, "")))


def first_unknown(values: dict[str, Any], keys: Sequence[str], below: str = "") -> str | None:
    """The first key of nested values that is not among the known ones.

    >>> first_unknown({"masks": {"treshold": 1}}, ["masks", "masks.threshold"])
    'masks.treshold'
    """
    for name, value in values.items():
        place = below + name
        if place not in keys:
            return place
        has_keys = any(key.startswith(f"{place}.") for key in keys)
        if has_keys and isinstance(value, dict) and (found := first_unknown(value, keys, f"{place}.")):
            return found
    return None


def unknown_key(place: str, keys: Sequence[str]) -> UsageError:
    """The error for a key that does not exist. It names the nearest: beside it, or anywhere.

    >>> print(unknown_key("treshold", ["out", "masks", "masks.threshold"]))
    configuration: unknown key 'treshold'; did you mean 'masks.threshold'?
    """
    parent, _, name = place.rpartition(".")
    beside = {_last(key): key for key in keys if key.rpartition(".")[0] == parent}
    anywhere = {_last(key): key for key in reversed(keys)}  # the least nested of one name
    for known in (beside, anywhere):
        if close := difflib.get_close_matches(name, known, n=1):
            return UsageError(f"configuration: unknown key '{place}'; did you mean '{known[close[0]]}'?")
    there = f"'{parent}' has" if parent and beside else "available:"
    known = beside or {key: key for key in keys if "." not in key}
    return UsageError(f"configuration: unknown key '{place}'; {there} {', '.join(sorted(known))}")


def _last(key: str) -> str:
    return key.rpartition(".")[2]
