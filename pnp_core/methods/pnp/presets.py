"""Presets of PnP-OVSS: where its configuration starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pnp_core.bundled import BUNDLED, PHOTO, TINY
from pnp_core.errors import UnknownNameError
from pnp_core.frozen import merge

_AUTHORS_BACKBONE = {
    "checkpoint": "Salesforce/blip-itm-large-flickr", "image_size": 336, "heads": 12,
}  # fmt: skip

# The presets are plain configuration of the same code; docs/method.md compares them line by line.
PRESETS: dict[str, dict[str, Any]] = {
    "authors": {
        "method": {
            "backbone": _AUTHORS_BACKBONE,
            "layer": 7,
            "head": 9,
            "dropout": {"iterations": 4, "strategy": "count", "amount": 10},
            "sum": "first_twice",
        },
        "salience": {"words": "authors", "candidates": {"fallback": "first"}},
        "masks": {"threshold": 0.15, "ties": "keep", "blur": 0.05},
    },
    "paper": {
        "method": {
            "backbone": {**_AUTHORS_BACKBONE, "image_size": 768},
            "layer": 7,
            "head": 9,
            "dropout": {"iterations": 4, "strategy": "fraction", "amount": 0.5},
            "sum": "plain",
        },
        "masks": {"threshold": 0.15, "blur": 0.05},
    },
    TINY: {
        "method": {
            "backbone": {"checkpoint": TINY, "image_size": 96, "heads": 2},
            "caption": {"mode": "per_class"},
            "layer": 0,
            "head": 1,
            "dropout": {"iterations": 4, "strategy": "count", "amount": 4},
            "sum": "plain",
        },
        "salience": {"candidates": {"clip": {"model": TINY, "template": "a picture of {}"}}},
        "masks": {"threshold": 0.06, "blur": 0.02, "crf": {"bilateral_srgb": 20}},
        "reward": {"clip": {"model": TINY, "template": "a picture of {}"}},
        "compare": {"masks": "full"},
    },
    PHOTO: {
        "method": {
            "backbone": {"name": PHOTO, "checkpoint": PHOTO, "image_size": 384, "heads": 4},
            "caption": {"mode": "per_class"},
            "layer": 0,
            "head": 0,
            "dropout": {"iterations": 4, "strategy": "count", "amount": 10},
            "sum": "plain",
        },
        "salience": {"candidates": {"fallback": "background"}},
        "masks": {"threshold": 0.2, "blur": 0.04},
        "reward": {"judge": "match"},
    },
}


def preset(name: str) -> dict[str, Any]:
    """The values of a preset, by stage.

    Raises:
        UnknownNameError: no such preset.

    >>> preset("authors")["method"]["head"]
    9
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise UnknownNameError("preset", str(name), PRESETS)
    return PRESETS[name]


def for_backbone(base: dict[str, Any], name: str) -> dict[str, Any]:
    """A preset with the defaults of another backbone's card than the one it is made for (BLIP where it names none).

    Raises:
        UnknownNameError: no such backbone.

    >>> for_backbone(preset("paper"), "bridgetower")["method"]["backbone"]["image_size"]
    770
    """
    from pnp_core.methods.pnp.backbones.cards import backbone_card

    card = backbone_card(name)
    method = base.get("method", {})
    if name == method.get("backbone", {}).get("name", "blip"):
        return base
    backbone = {"name": name, "checkpoint": card.checkpoint, "image_size": card.image_size}
    own: dict[str, Any] = {"method": {"backbone": backbone, "layer": card.layer, "head": card.head}}
    if name == PHOTO:  # it knows the names it was trained with, and no words run together
        own["salience"] = {"words": "natural"}
    # Not merged: what the preset says of its own weights is nothing to another backbone's.
    return merge({**base, "method": {k: v for k, v in method.items() if k != "backbone"}}, own)


def starting_point(values: Mapping[str, Any], bundled: str) -> dict[str, Any]:
    """The preset that unchecked values ask for, or that of the weights they name, or that of a bundled model.

    Raises:
        UnknownNameError: no such preset or backbone.
    """
    given = _backbone_values(values)
    chosen = values.get("preset") or _preset_of_weights(given) or bundled
    base = preset(chosen)
    if isinstance(name := _backbone_of(given), str):
        base = for_backbone(base, name)
    return {**base, "preset": chosen}


def _backbone_values(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """What unchecked values say of the backbone."""
    found: Any = values
    for part in ("method", "backbone"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _backbone_of(given: Mapping[str, Any]) -> Any:
    """The backbone that is named, itself or by a checkpoint that comes with the package."""
    checkpoint = given.get("checkpoint")
    return given.get("name", BUNDLED.get(checkpoint) if isinstance(checkpoint, str) else None)


def _preset_of_weights(given: Mapping[str, Any]) -> str | None:
    """The preset that the weights are for, None where none are named."""
    checkpoint, named = given.get("checkpoint"), given.get("name")
    if isinstance(checkpoint, str) and checkpoint in BUNDLED:
        return checkpoint
    return "authors" if checkpoint is not None or named is not None else None
