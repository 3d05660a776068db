"""No CRF: the softmax over channels, which is also what the dense CRF starts from."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from pnp_core.masks.config import CrfConfig


def softmax(scores: Float[np.ndarray, "C H W"]) -> Float[np.ndarray, "C H W"]:
    """Softmax over the channels."""
    raised = np.exp(scores - scores.max(axis=0))
    return raised / raised.sum(axis=0)


def refine(
    scores: Float[np.ndarray, "C H W"], picture: UInt8[np.ndarray, "H W 3"], config: CrfConfig
) -> Float[np.ndarray, "C H W"]:
    """Softmax of the scores; picture and parameters play no part."""
    return softmax(scores)
