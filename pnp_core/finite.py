"""NaN and infinity: whatever they touch looks like a result, so nothing is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pnp_core.errors import CheckpointError, ShardError


def check_weights(model: Any, place: str) -> None:
    """Refuse weights that are not finite. One pass over each tensor, without a copy of it.

    Buffers that no file holds are left alone: masks of attention are infinite by design.

    Args:
        model: a torch.nn.Module; torch is not imported here, since maps of numbers need none.
        place: where the weights are from, for people.

    Raises:
        CheckpointError: a tensor holds NaN or infinity.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.numel():
            # NaN comes through as both. A sum would do as well, but large numbers overflow in it.
            low, high = tensor.aminmax()
            if not (low.isfinite() and high.isfinite()):
                raise CheckpointError(
                    f"{place} holds NaN or infinity in tensor '{name}': the file is damaged, or its training failed; "
                    f"get it again"
                )


def require_finite(values: np.ndarray, what: str, image: str, classes: Sequence[str], where: str) -> None:
    """Refuse numbers of a picture that are none.

    Args:
        values: (C, ...), a part for each class.
        what: they are, for people.
        image: its key.
        classes: names of the C classes.
        where: they were computed, for people.

    Raises:
        ShardError: names the picture and the first class with NaN or infinity.
    """
    sound = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if not sound.all():
        first = classes[int(sound.argmin())]
        raise ShardError(f"{what} of picture '{image}' for class '{first}' is not finite (NaN or infinity): {where}")
