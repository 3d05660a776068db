"""Decode pictures of unknown origin to RGB, and write label maps as palette PNG."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from pnp_core.errors import UnreadableImage

IMAGE_EXTENSIONS = frozenset(
    (
        "avif",
        "bmp",
        "gif",
        "heic",
        "heif",
        "jfif",
        "jp2",
        "jpe",
        "jpeg",
        "jpg",
        "png",
        "pnm",
        "ppm",
        "tif",
        "tiff",
        "webp",
    )
)
"""File name endings that are taken for pictures."""


def voc_palette() -> np.ndarray:
    """The Pascal VOC colour map, (256, 3) uint8: bit-reversed label bits spread over R, G, B.

    >>> voc_palette()[[0, 1, 15, 255]].tolist()
    [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]
    """
    labels = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


VOC_PALETTE = voc_palette()

# Pillow warns of oddities in pictures it reads all the same; the size limit is ours to keep.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def encode_label_map(labels: np.ndarray) -> bytes:
    """A label map (H, W) uint8 as palette PNG bytes with the VOC colours."""
    image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8), mode="P")
    image.putpalette(VOC_PALETTE.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def decode_label_map(data: bytes) -> np.ndarray:
    """A label map (H, W) uint8 from palette or grey PNG bytes, values untouched.

    Raises:
        UnreadableImage: not a single-channel 8-bit picture.
    """
    with Image.open(io.BytesIO(data)) as image:
        if image.mode not in ("P", "L"):
            raise UnreadableImage(f"a label map must be a palette or grey PNG, not mode {image.mode}")
        return np.array(image, dtype=np.uint8)


def encode_grey(values: np.ndarray) -> bytes:
    """An (H, W) uint8 array as grey PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values, dtype=np.uint8), mode="L").save(buffer, format="PNG")
    return buffer.getvalue()


def decode_image(data: bytes, max_pixels: int) -> np.ndarray:
    """Decode a picture as a viewer shows it.

    EXIF rotation is applied, 16-bit grey is scaled (not saturated), transparency is laid on
    white, an animation gives its first frame.

    Args:
        data: encoded picture.
        max_pixels: refuse pictures with more pixels.

    Returns:
        (H, W, 3) uint8 RGB, image pixels.

    Raises:
        UnreadableImage: with the reason in one line.
    """
    if not data:
        raise UnreadableImage("empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > max_pixels:
                raise UnreadableImage(f"{image.width}x{image.height} pixels are over the limit of {max_pixels}")
            image.load()  # first: after a failed look at the EXIF it would give half a picture
            return np.array(_to_rgb(ImageOps.exif_transpose(image)))
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise nearly any type on hostile bytes
        raise UnreadableImage(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split())
    if "cannot identify image file" in message:
        message = "not a picture in a known format"
    return f"{type(error).__name__}: {message}"[:300]


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")
