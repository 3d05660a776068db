"""Values of a configuration as people type them, `key.key=value`."""

from __future__ import annotations

from collections.abc import Sequence
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
