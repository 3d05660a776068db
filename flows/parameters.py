"""Values of a configuration as people type them, `key.key=value`, and what is said of a key that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from pnp_core.errors import UsageError
from pnp_core.frozen import merge


def parse_parameters(parameters: Sequence[str]) -> dict[str, Any]:
    """Nested values from `key.key=value`; values are YAML.

    Raises:
        UsageError: not of that form.

    >>> parse_parameters(["method.layer=7", "config.classes=[cat, dog]", "png=true", "out=/a=b"])
    {'method': {'layer': 7}, 'classes': ['cat', 'dog'], 'png': True, 'out': '/a=b'}
    """
    import yaml

    given: dict[str, Any] = {}
    for parameter in parameters:
        key, equals, text = parameter.partition("=")
        path = [part.strip() for part in key.removeprefix("config.").split(".")]
        if not equals or not all(path):
            raise UsageError(f"-p {parameter}: expected KEY=VALUE, such as -p out=/data/runs/voc")
        try:
            value: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"-p {parameter}: {' '.join(str(error).split())}") from error
        path += ["name"] if path == ["method"] and isinstance(value, str) else []
        given = merge(given, nested(".".join(path), value))
    return given


def nested(path: str, value: Any) -> dict[str, Any]:
    """A value at a dotted path.

    >>> nested("masks.crf.name", "off")
    {'masks': {'crf': {'name': 'off'}}}
    """
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def value_at(values: Any, path: str) -> Any:
    """What stands at a dotted path, None where nothing does.

    >>> value_at({"masks": {"blur": 0.1}}, "masks.blur"), value_at({"masks": 3}, "masks.blur")
    (0.1, None)
    """
    for part in path.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


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
