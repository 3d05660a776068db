"""What comes with the package: two sets of weights and drawn scenes."""

from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parent
"""Folder of the package."""
TINY: Final = "tiny"
PHOTO: Final = "photo"
TINY_VIT: Final = "tiny-vit"
"""A CLIP for drawn scenes that sees with a transformer."""
BUNDLED: Final = {TINY: "blip", PHOTO: "photo"}
"""Checkpoints, and the backbone that each is made for."""
SCENES: Final = "scenes"
"""Dataset of drawn scenes."""
