"""Decode pictures of unknown origin to RGB, and write label maps as palette PNG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock

import numpy as np
from PIL import Image, ImageOps

from pnp_core.errors import UnreadableImage, in_words
from pnp_core.first_bytes import UNKNOWN, refusal

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


def palette_of(colours: Sequence[str]) -> np.ndarray:
    """A palette (256, 3) uint8 from #rrggbb of the labels 0, 1 ...; the others keep their VOC colours.

    >>> palette_of(["#102030"])[[0, 1]].tolist()
    [[16, 32, 48], [128, 0, 0]]
    """
    palette = VOC_PALETTE.copy()
    palette[: len(colours)] = [list(bytes.fromhex(colour.removeprefix("#"))) for colour in colours]
    return palette


# Pillow warns of oddities in pictures it reads all the same; the size limit is ours to keep.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def encode_label_map(labels: np.ndarray, palette: np.ndarray = VOC_PALETTE) -> bytes:
    """A label map (H, W) uint8 as palette PNG bytes.

    Args:
        palette: (256, 3) uint8 colours of the labels.
    """
    image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8), mode="P")
    image.putpalette(palette.tobytes())
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


def is_whole_picture(data: bytes) -> bool:
    """Whether bytes are a picture none of whose parts is damaged, as far as its format tells (PNG does)."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.verify()
    except Exception:  # Pillow's plugins raise nearly anything
        return False
    return True


def encode_grey(values: np.ndarray) -> bytes:
    """An (H, W) uint8 array as grey PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values, dtype=np.uint8), mode="L").save(buffer, format="PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, image pixels, upright.
        notes: what was done to it beyond decoding, for people.
    """

    pixels: np.ndarray
    notes: tuple[str, ...] = ()


FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "PPM", "JPEG2000")
"""Whatever a file is called, nothing else is tried: Pillow would hand EPS to Ghostscript, for one."""
# Pictures are decoded on several threads; of large ones, which take gigabytes on the way, one at a time.
_LARGE_PIXELS = 16_000_000
_ONE_LARGE = Lock()


def decode_image(data: bytes, max_pixels: int, side: int | None = None) -> Picture:
    """Decode a picture as a viewer shows it.

    EXIF rotation is applied, 16-bit grey is scaled (not saturated), transparency is laid on
    white, an animation gives its first frame.

    Args:
        data: encoded picture.
        max_pixels: refuse pictures with more pixels.
        side: a thumbnail will do: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as both its sides
            keep this many pixels.

    Raises:
        UnreadableImage: with the reason in one line.
    """
    if reason := refusal(data):
        raise UnreadableImage(reason)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise UnreadableImage(f"{image.width}x{image.height} pixels are over the limit of {max_pixels}")
            with _ONE_LARGE if image.width * image.height > _LARGE_PIXELS else nullcontext():
                if side:
                    image.draft(None, (side, side))
                image.load()  # first: after a failed look at the EXIF it would give half a picture
                return _upright_rgb(image)
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise nearly any type on hostile bytes
        raise UnreadableImage(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"over any limit: more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels (decompression bomb)"
    message = " ".join(str(error).split())
    if "cannot identify image file" in message:
        return UNKNOWN
    return f"cannot be decoded: {message or in_words(error)}"[:300]


def _upright_rgb(image: Image.Image) -> Picture:
    """Turn, flatten and convert; in place where it can be, for a copy of 100 million pixels is 400 MB."""
    notes = []
    if _several(image):
        several = "several pictures in the file" if image.format in ("MPO", "TIFF") else "animation"
        notes.append(f"{several}: only the first is used")
    if _turned(image):
        notes.append("EXIF orientation applied")
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values, clear = np.asarray(image), image.info.get("transparency")
        eight = _to_8_bits(values)
        notes.append("brightness scaled to 8 bits")
        if clear is not None and (values == clear).any():
            eight[values == clear] = 255
            notes.append("transparency laid on white")
        return Picture(np.repeat(eight[..., None], 3, axis=2), tuple(notes))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layered = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = layered.getchannel("A")
        if alpha.getextrema() != (255, 255):
            notes.append("transparency laid on white")
        image = Image.new("RGB", layered.size, (255, 255, 255))
        image.paste(layered, mask=alpha)
    return Picture(np.asarray(image if image.mode == "RGB" else image.convert("RGB")), tuple(notes))


def _several(image: Image.Image) -> bool:
    """Whether there are more pictures in the file; they are not counted."""
    try:
        return getattr(image, "is_animated", False)
    except Exception:  # a damaged second one; the first has been read
        return True


def _turned(image: Image.Image) -> bool:
    """Whether a viewer turns or mirrors it; an XMP packet may say so where EXIF does not."""
    return image.getexif().get(0x0112, 1) in range(2, 9)


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Grey values of 16 or 32 bits or floats to uint8; the range must be one that can be told.

    Raises:
        UnreadableImage: values of no known range.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(values).all() or low < 0 or high > 65535:
        raise UnreadableImage(f"grey values from {low:g} to {high:g}: convert the picture to 8 or 16 bits")
    if values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    # Wider values say nothing of their range: the narrowest usual one that holds them.
    whole = next(top for top in ((1, 255, 65535) if values.dtype.kind == "f" else (255, 65535)) if high <= top)
    return np.rint(values * (255 / whole)).astype(np.uint8)


COMMENT = 200
"""Characters of a picture's comment that are kept."""
_DESCRIPTION, _EXIF, _USER_COMMENT = 0x010E, 0x8769, 0x9286


def picture_comment(data: bytes) -> str:
    """What the picture's own file says of it: EXIF description or comment, JPEG or PNG comment; empty when nothing.

    It is whatever somebody wrote there: to be shown as text and nothing else.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            exif = image.getexif()
            written = [exif.get(_DESCRIPTION), exif.get_ifd(_EXIF).get(_USER_COMMENT)]
            unicode = "utf-16-be" if exif.endian == ">" else "utf-16-le"
            written += [image.info.get(name) for name in ("comment", "Description", "Comment")]
    except Exception:  # as in decode_image
        return ""
    texts = (_comment_text(value, unicode) for value in written if value)
    return next((text for text in texts if text), "")[:COMMENT]


def _comment_text(value: str | bytes, unicode: str) -> str:
    """A comment as one line; EXIF's has its encoding in the first eight bytes."""
    if isinstance(value, bytes):
        encoding = unicode if value.startswith(b"UNICODE\0") else "utf-8"
        value = value.removeprefix(b"ASCII\0\0\0").removeprefix(b"UNICODE\0").decode(encoding, "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
