"""Warnings that several methods have."""

from __future__ import annotations

from collections.abc import Sequence

from pnp_core.bundled import TINY, TINY_VIT
from pnp_core.inputs.scenes.shapes import CLASS_NAMES
from pnp_core.openclip.config import ClipWeights
from pnp_core.openclip.queries import some


def unknown_names(clips: Sequence[ClipWeights], names: Sequence[str]) -> list[str]:
    """A warning where a bundled CLIP is asked about what it has never seen."""
    bundled = [clip.model for clip in clips if clip.model in (TINY, TINY_VIT)]
    unknown = [name for name in names if name.lower() not in CLASS_NAMES]
    if not bundled or not unknown:
        return []
    return [
        f"the bundled CLIP {bundled[0]} knows only its {len(CLASS_NAMES)} drawn classes, not {some(unknown)}: "
        "its masks mean nothing"
    ]
