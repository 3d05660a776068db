"""Where a configuration starts from, and how its parts are laid over each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pnp_core.bundled import PHOTO, TINY
from pnp_core.errors import UnknownNameError, UsageError
from pnp_core.text.files import text_of

_AUTHORS_BACKBONE = {
    "checkpoint": "Salesforce/blip-itm-large-flickr", "image_size": 336, "heads": 12,
}  # fmt: skip

# The presets are plain configuration of the same code; docs/method.md compares them line by line.
PRESETS: dict[str, dict[str, Any]] = {
    "authors": {
        "salience": {
            "backbone": _AUTHORS_BACKBONE,
            "words": "authors",
            "layer": 7,
            "head": 9,
            "dropout": {"iterations": 4, "strategy": "count", "amount": 10},
            "candidates": {"fallback": "first"},
        },
        "masks": {"sum": "first_twice", "threshold": 0.15, "ties": "keep", "blur": 0.05},
    },
    "paper": {
        "salience": {
            "backbone": {**_AUTHORS_BACKBONE, "image_size": 768},
            "layer": 7,
            "head": 9,
            "dropout": {"iterations": 4, "strategy": "fraction", "amount": 0.5},
        },
        "masks": {"sum": "plain", "threshold": 0.15, "blur": 0.05},
    },
    TINY: {
        "salience": {
            "backbone": {"checkpoint": TINY, "image_size": 96, "heads": 2},
            "caption": {"mode": "per_class"},
            "candidates": {"clip": {"model": TINY, "template": "a picture of {}"}},
            "layer": 0,
            "head": 1,
            "dropout": {"iterations": 4, "strategy": "count", "amount": 4},
        },
        "masks": {"sum": "plain", "threshold": 0.06, "blur": 0.02, "crf": {"bilateral_srgb": 20}},
        "reward": {"clip": {"model": TINY, "template": "a picture of {}"}},
        "compare": {"masks": "full"},
    },
    PHOTO: {
        "salience": {
            "backbone": {"name": PHOTO, "checkpoint": PHOTO, "image_size": 384, "heads": 4},
            "caption": {"mode": "per_class"},
            "candidates": {"fallback": "background"},
            "layer": 0,
            "head": 0,
            "dropout": {"iterations": 4, "strategy": "count", "amount": 10},
        },
        "masks": {"sum": "plain", "threshold": 0.2, "blur": 0.04},
        "reward": {"judge": "match"},
    },
}


def read_settings(url: str) -> dict[str, Any]:
    """Parts of a configuration from a YAML file, a path or any fsspec URL.

    Raises:
        UsageError: missing, unreadable, or no mapping.
    """
    import fsspec
    import yaml

    try:
        fs, path = fsspec.core.url_to_fs(url if "://" in url else str(Path(url).expanduser()))
        values = yaml.safe_load(text_of(fs.cat_file(path)))
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"cannot read configuration '{url}': {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"configuration '{url}' is not valid YAML: {' '.join(str(error).split())}") from error
    if values is not None and not isinstance(values, dict):
        raise UsageError(f"configuration '{url}' must be a mapping like 'masks: {{threshold: 0.2}}'")
    return values or {}


def preset(name: str) -> dict[str, Any]:
    """The values of a preset, by stage.

    Raises:
        UnknownNameError: no such preset.

    >>> preset("authors")["salience"]["head"]
    9
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise UnknownNameError("preset", str(name), PRESETS)
    return PRESETS[name]


def for_backbone(base: dict[str, Any], name: str) -> dict[str, Any]:
    """A preset with the defaults of another backbone's card than the one it is made for (BLIP where it names none).

    Raises:
        UnknownNameError: no such backbone.

    >>> for_backbone(preset("paper"), "bridgetower")["salience"]["backbone"]["image_size"]
    770
    """
    from pnp_core.methods.pnp.backbones.cards import backbone_card

    card = backbone_card(name)
    salience = base.get("salience", {})
    if name == salience.get("backbone", {}).get("name", "blip"):
        return base
    backbone = {"name": name, "checkpoint": card.checkpoint, "image_size": card.image_size}
    own: dict[str, Any] = {"backbone": backbone, "layer": card.layer, "head": card.head}
    if name == PHOTO:  # it knows the names it was trained with, and no words run together
        own["words"] = "natural"
    return {**base, "salience": {**salience, **own}}
