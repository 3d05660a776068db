"""Configuration of a CLIP model."""

from __future__ import annotations

from pnp_core.frozen import Config


class ClipConfig(Config):
    """A CLIP model of open_clip."""

    model: str = "ViT-B-16"
    """CLIP: `tiny` (bundled), a name of open_clip, or `local-dir:FOLDER`.

    A folder has open_clip_config.json and weights."""
    pretrained: str | None = "openai"
    """Pretrained tag or weights file of that CLIP; ignored for `local-dir:`."""
    template: str = "a photo of a {}"
    """The caption; `{}` stands for the class name."""
