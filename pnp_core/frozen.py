"""The frozen base of all configuration, what of it names results, and how settings are laid over each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Mark:
    """What a field means for the names of results; given where the field is declared: `Annotated[int, NO_RESULT]`."""

    what: str


NO_RESULT = Mark("no result")
"""In no fingerprint: it changes no stored result, or something else in the fingerprint names what it stands for."""
NO_SCORE = Mark("no score")
"""Changes no score: tables take settings that differ in it for one."""
OF_MASKS = Mark("of masks")
"""Of a method's settings: in the fingerprint of its masks, not in that of its maps, which stay when it changes."""


@dataclass(frozen=True)
class Newer:
    """A field that is newer than the first runs: in a fingerprint only where it is not what those had."""

    before: Any


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
    from typing_extensions import dataclass_transform

    @dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
    class _Frozen(ModelMetaclass):
        """Frozen, hence hashable, which type checkers do not see by `model_config`."""
else:
    _Frozen = type(BaseModel)


class Config(BaseModel, metaclass=_Frozen):
    """Base of all configuration: immutable, unknown keys refused."""

    # Defaults are validated too: a default 3 of a float is 3.0 as in a file, and both have one fingerprint.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    def facts(self) -> dict[str, Any]:
        """What of it names a result, for fingerprints."""
        return _dumped(self, NO_RESULT)

    def setting(self) -> dict[str, Any]:
        """What of it can change a score, as JSON."""
        return _dumped(self, NO_SCORE, mode="json")


def formerly(names: tuple[str, ...]) -> Callable[[dict[str, Any]], None]:
    """For the JSON schema of a part: names of settings that stood in it and still may, where a flow's configuration
    takes them to their place.
    """

    def add(schema: dict[str, Any]) -> None:
        schema["properties"] |= {
            name: {"deprecated": True, "description": f"As `method.{name}`, where it belongs."} for name in names
        }

    return add


def marks(field: FieldInfo) -> tuple[Any, ...]:
    """What a field is marked with."""
    return tuple(mark for mark in field.metadata if isinstance(mark, Mark | Newer))


def _dumped(config: Config, without: Mark, mode: str = "python") -> dict[str, Any]:
    """The fields that are not marked so; parts say themselves what of them counts."""
    dumped, found = config.model_dump(mode=mode), {}
    for name, field in type(config).model_fields.items():
        value, own = getattr(config, name), marks(field)
        unchanged = without is NO_RESULT and any(isinstance(m, Newer) and m.before == value for m in own)
        if without in own or unchanged:
            continue
        inner = isinstance(value, Config)
        found[name] = (value.facts() if without is NO_RESULT else value.setting()) if inner else dumped[name]
    return found


def merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Lay `override` over `base`, dictionary by dictionary; neither is changed.

    >>> merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}})
    {'a': {'x': 1, 'y': 3}}
    """
    merged = dict(base)
    for key, value in override.items():
        inner = merged.get(key)
        if isinstance(inner, dict) and isinstance(value, dict):
            value = merge(inner, value)
        merged[key] = value
    return merged


def value_at(values: Any, path: str) -> Any:
    """What stands at a dotted path, None where nothing does.

    >>> value_at({"masks": {"blur": 0.1}}, "masks.blur"), value_at({"masks": 3}, "masks.blur")
    (0.1, None)
    """
    for part in path.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values
