"""Dense CRF backends by name; adding one is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pnp_core.config import CrfConfig
from pnp_core.crf import dense, off
from pnp_core.errors import UnknownNameError

Crf = Callable[[np.ndarray, np.ndarray, CrfConfig], np.ndarray]
"""(scores (C, H, W) in [0, 1], picture (H, W, 3) uint8 RGB, parameters) -> probabilities (C, H, W)."""

CRFS: dict[str, Crf] = {"dense": dense.refine, "off": off.refine}


def get_crf(name: str) -> Crf:
    """The CRF of that name.

    Raises:
        UnknownNameError: no such CRF.
    """
    if name not in CRFS:
        raise UnknownNameError("CRF", name, CRFS)
    return CRFS[name]
