"""What a method's authors run on each dataset: a `cards.yaml` beside the method, with `plain` for any other data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def read_settings(room: str) -> dict[str, Any]:
    """The `cards.yaml` beside a module, given by its `__file__`; not to be changed."""
    return yaml.safe_load((Path(room).parent / "cards.yaml").read_text(encoding="utf-8"))


def chosen_for(room: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings for the dataset of a flow's unchecked values; a list of classes has none of its own."""
    settings = read_settings(room)
    if "classes" in values:
        return settings["plain"]
    return settings["cards"].get(values.get("dataset", "scenes"), settings["plain"])
