"""What comes with the package: two sets of weights and drawn scenes."""

from typing import Final

TINY: Final = "tiny"
PHOTO: Final = "photo"
BUNDLED: Final = {TINY: "blip", PHOTO: "photo"}
"""Checkpoints, and the backbone that each is made for."""
SCENES: Final = "scenes"
"""Dataset of drawn scenes."""
