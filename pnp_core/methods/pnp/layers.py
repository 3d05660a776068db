"""Which cross-attention layers and heads there are, and whose salience can be anything. No model is needed for it."""

from __future__ import annotations

from typing import Literal

from pnp_core.errors import LayerRangeError

Kind = Literal["gradcam", "attention"]


def check_layer_head(layer: int, head: int, layers: int, heads: int) -> None:
    """Refuse a (layer, head) the model does not have.

    Raises:
        LayerRangeError: with the range there is.
    """
    if not 0 <= layer < layers:
        raise LayerRangeError(f"layer {layer} is out of range: the model has layers 0 to {layers - 1}")
    if not 0 <= head < heads:
        raise LayerRangeError(f"head {head} is out of range: the model has heads 0 to {heads - 1}")


def useful_layers(layers: int, kind: Kind) -> range:
    """Layers whose salience can differ from zero.

    The gradient of the last layer is exactly zero for class tokens, because the match head reads
    [ENC] only; its attention is not.

    >>> list(useful_layers(3, "gradcam")), list(useful_layers(3, "attention"))
    ([0, 1], [0, 1, 2])
    """
    return range(layers if kind == "attention" else layers - 1)


def check_salient(layer: int, layers: int, kind: Kind) -> None:
    """Refuse a layer whose salience is zero.

    Raises:
        LayerRangeError: with the layers there are.
    """
    if layer not in useful_layers(layers, kind):
        raise LayerRangeError(
            f"layer {layer} is the last one: its salience is zero, because the match score reads no "
            f"class token after it; use layers 0 to {layers - 2}"
        )
