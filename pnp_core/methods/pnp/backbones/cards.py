"""What is known of each backbone: one YAML file beside its module."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import yaml

from pnp_core.errors import UnknownNameError
from pnp_core.frozen import Config

_FOLDER = Path(__file__).parent


class Weights(Config):
    """A published checkpoint."""

    name: str
    """Hub id, or the name of the file its authors publish."""
    convert: bool = False
    """Has to go through `pnp-ovss convert-weights` first."""
    note: str = ""


class Shape(Config):
    """What decides time and memory."""

    vision_layers: int
    vision_width: int
    text_layers: int
    text_width: int
    parameters: float
    """In millions, image and text side together."""
    carries_image: bool = False
    """Cross-modal layers change the image's tokens too, for each caption."""


class BackboneCard(Config):
    """Facts of a vision-language model.

    Attributes:
        layers: cross-attention layers, numbered from 0; `layer` and `head` of a configuration choose among them.
        image_size: default side in model pixels, of the paper's experiments where it has some.
        native_size: side the weights were trained with.
        layer, head: the default choice.
        guess: nobody published one: tune it.
        model_type: what config.json of a checkpoint says.
        heads_at: path of the head count in config.json, which leaves no trace in the weights.
        layers_at: path of the layer count.
        needed: tensors without which a checkpoint cannot match image and text.
        version: goes up when the same weights give other salience.
        contrastive: published weights hold a trained contrastive head, and the module reads it.
        match_all: see `Pinned`.
    """

    name: str
    title: str
    paper: str
    licence: str
    layers: int
    heads: int
    patch_size: int
    native_size: int
    image_size: int
    tokenizer: str
    layer: int
    head: int
    guess: bool = False
    choice: str
    """Where layer and head come from."""
    shape: Shape
    weights: tuple[Weights, ...]
    model_type: str
    layers_at: str
    heads_at: str
    needed: tuple[str, ...]
    version: int = 1
    contrastive: bool = False
    match_all: bool = False

    @property
    def checkpoint(self) -> str:
        """The weights that a command uses when none are named."""
        return self.weights[0].name


@lru_cache
def backbone_names() -> tuple[str, ...]:
    """All there are.

    >>> backbone_names()
    ('albef', 'blip', 'bridgetower', 'mplug', 'photo')
    """
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.yaml")))


@lru_cache
def backbone_card(name: str) -> BackboneCard:
    """The facts of one.

    Raises:
        UnknownNameError: no such backbone.
    """
    if name not in backbone_names():
        raise UnknownNameError("backbone", name, backbone_names())
    values = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text())
    return BackboneCard.model_validate({"name": name, **values})
