"""The frozen base of all configuration, and how settings are laid over each other."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of all configuration: immutable, unknown keys refused."""

    # Defaults are validated too: a default 3 of a float is 3.0 as in a file, and both have one fingerprint.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


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
