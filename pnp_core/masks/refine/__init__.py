"""Dense CRF backends by name; adding one is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np

from pnp_core.errors import UnknownNameError
from pnp_core.masks.config import CrfConfig

Crf = Callable[[np.ndarray, np.ndarray, CrfConfig], np.ndarray]
"""(scores (C, H, W) in [0, 1], picture (H, W, 3) uint8 RGB, parameters) -> probabilities (C, H, W)."""

CRFS: dict[str, str] = {"dense": "dense_crf", "fast": "fast_crf", "off": "off", "torch": "tensor_crf"}
"""Modules with `refine`, a `Crf`."""


def get_crf(name: str) -> Crf:
    """The CRF of that name.

    Raises:
        UnknownNameError: no such CRF.
    """
    if name not in CRFS:
        raise UnknownNameError("CRF", name, CRFS)
    # Only here, because what a CRF is made of (torch, pydensecrf) takes seconds to import or may not be there.
    return import_module(f"pnp_core.masks.refine.{CRFS[name]}").refine
