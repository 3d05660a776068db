"""The bundled model for photographs: a frozen EfficientNet-Lite2 and a small text encoder that looks at it.

Its facts are in photo.yaml, how it was made in docs/photo-model.md.
"""

from __future__ import annotations

from typing import Any, ClassVar, no_type_check

import torch
from jaxtyping import Float
from torch import nn
from torch.nn import functional as F
from transformers import BlipTextConfig

from pnp_core.methods.pnp.backbones.base import PIXEL_MEAN, PIXEL_STD, Backbone
from pnp_core.methods.pnp.backbones.checkpoint import Checkpoint
from pnp_core.methods.pnp.backbones.efficientnet import HEAD, EfficientNetLite
from pnp_core.methods.pnp.backbones.fusion import FusionModel
from pnp_core.methods.pnp.backbones.loading import load_weights
from pnp_core.methods.pnp.backbones.photo_names import ENC, SEP, UNKNOWN, Vocabulary, read_vocabulary
from pnp_core.methods.pnp.backbones.towers import FusionConfig, FusionWeights
from pnp_core.methods.pnp.config import BackboneConfig
from pnp_core.methods.pnp.prompts import EncodedText

PATCH = 16


@no_type_check  # transformers makes the initialiser, and calls it with more than it declares
class PhotoConfig(FusionConfig):
    """The image encoder by its multipliers of width and depth, the text encoder as BLIP's."""

    model_type = "photo"
    sub_configs_defaults: ClassVar[Any] = {"text_config": BlipTextConfig}


class Surroundings(nn.Module):
    """A ConvNeXt block: each token learns of those around it, as far as 3 patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.inner = nn.Conv2d(width, width, 1)
        self.outer = nn.Conv2d(width, width, 1)

    def forward(self, x: Float[torch.Tensor, "B D h w"]) -> Float[torch.Tensor, "B D h w"]:
        """The same tokens, knowing more."""
        normed = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + self.outer(F.gelu(self.inner(self.depthwise(normed))))


class TokenHead(nn.Module):
    """The end of the image side: surroundings and a layer norm; the mean is the CLS token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.surroundings = Surroundings(width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[torch.Tensor, "B D h w"]) -> Float[torch.Tensor, "B P1 D"]:
        """Image tokens, CLS first."""
        tokens = self.norm(self.surroundings(x).flatten(2).transpose(1, 2))
        return torch.cat([tokens.mean(1, keepdim=True), tokens], 1)


class ImageTokens(nn.Module):
    """The whole image side: the frozen encoder, an affine map of its features, and the head."""

    def __init__(self, encoder: EfficientNetLite, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.deep = nn.Conv2d(HEAD, width, 1)
        self.middle = nn.Conv2d(encoder.middle, width, 1, bias=False)
        self.head = TokenHead(width)

    def forward(self, pixels: Float[torch.Tensor, "B 3 H W"]) -> Float[torch.Tensor, "B P1 D"]:
        """Of pixels as the encoder was trained with: (RGB - 127) / 128."""
        middle, deep = self.encoder(pixels)
        return self.head(self.deep(deep) + self.middle(middle))


class PhotoForImageTextRetrieval(FusionWeights):
    """Holds the weights."""

    config_class = PhotoConfig

    def __init__(self, config: PhotoConfig) -> None:
        super().__init__(config)
        vision: Any = config.vision_config
        encoder = EfficientNetLite(vision["width"], vision["depth"], dilated=True)
        text: Any = config.text_config
        self.vision_model = ImageTokens(encoder, text.encoder_hidden_size)
        self.post_init()


class PhotoVision:
    """The image encoder as the pipeline calls it; see `VisionTower`. Hidden patches are the mean colour here too."""

    patch_size = PATCH

    def __init__(self, model: ImageTokens) -> None:
        self._model = model.to(memory_format=torch.channels_last)
        self._factor = torch.tensor(PIXEL_STD).view(1, 3, 1, 1) * 255 / 128
        self._shift = (torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1) * 255 - 127) / 128

    def to(self, device: torch.device, dtype: torch.dtype) -> PhotoVision:
        """See `VisionTower`."""
        self._model.to(device=device, dtype=dtype)
        self._factor, self._shift = (t.to(device=device, dtype=dtype) for t in (self._factor, self._shift))
        return self

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `VisionTower`."""
        own = pixels * self._factor + self._shift
        return self._model(own.contiguous(memory_format=torch.channels_last))


class PhotoModel(FusionModel):
    """With a token for each name it knows."""

    vocabulary: Vocabulary

    def tokenize(self, text: str) -> EncodedText:
        """Encode a caption; a name is one token, however many words it has."""
        pieces = list(self.vocabulary.pieces(text))
        ids = [ENC, *(piece.token for piece in pieces), SEP]
        offsets = [(0, 0), *((piece.start, piece.end) for piece in pieces), (0, 0)]
        return EncodedText(ids, offsets, [i == UNKNOWN for i in ids])


def load(config: BackboneConfig, checkpoint: Checkpoint, device: torch.device) -> Backbone:
    """Load a checkpoint for inference.

    Raises:
        CheckpointError: weights missing or of another shape than config.json says.
    """
    weights = load_weights(PhotoForImageTextRetrieval, checkpoint.folder)
    model = PhotoModel(PhotoVision(weights.vision_model), weights, None, config, device)
    model.vocabulary = read_vocabulary(checkpoint.folder)
    return model
