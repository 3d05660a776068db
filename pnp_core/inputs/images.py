"""Decode pictures of unknown origin to RGB, and write label maps as palette PNG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pnp_core.errors import UnreadableImage, in_words
from pnp_core.inputs._colour import to_rgb
from pnp_core.inputs._depth import (
    FULL_RANGE,
    grey_in_8_bits,
    lower_bytes,
    says_its_bits,
    spread,
    to_8_bits,
    uses_little,
)
from pnp_core.inputs._tiff import ICC_PROFILE, ORIENTATION, Bands, Page, find_page, read_bands
from pnp_core.storage.first_bytes import FORMATS, UNKNOWN, refusal

IMAGE_EXTENSIONS = frozenset(
    (
        *("jpg", "jpeg", "jpe", "jif", "jfi", "jfif", "mpo"),
        *("png", "apng", "gif", "webp", "bmp", "dib"),
        *("avif", "avifs", "heic", "heics", "heif", "heifs", "hif"),
        *("tif", "tiff", "btf", "tf8"),
        *("pbm", "pgm", "ppm", "pnm", "pam", "pfm"),
        *("jp2", "j2k", "j2c", "jpc", "jpf", "jpx"),
    )
)
"""File name endings that are taken for pictures."""
LABEL_MODES = {"P": np.uint8, "L": np.uint8, "I;16": np.uint16}
"""Pillow's modes of label maps, and the type of their labels."""
_NARROW = np.dtype(np.uint8)


@lru_cache
def voc_palette(labels: np.dtype[Any] = _NARROW) -> np.ndarray:
    """The Pascal VOC colour map, (256 or 65536, 3) uint8: bit-reversed label bits spread over R, G, B.

    Args:
        labels: their type; of 16 bits there are more, and the first are the same.

    >>> voc_palette()[[0, 1, 15, 255]].tolist()
    [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]
    """
    number = np.iinfo(labels).max + 1
    own = np.arange(number)
    palette = np.zeros((number, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((own >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    palette.setflags(write=False)
    return palette


VOC_PALETTE = voc_palette()


def palette_of(colours: Sequence[str], labels: np.dtype[Any] = _NARROW) -> np.ndarray:
    """A palette (256 or 65536, 3) uint8 from #rrggbb of the labels 0, 1 ...; the others keep their VOC colours.

    Args:
        labels: their type.

    >>> palette_of(["#102030"])[[0, 1]].tolist()
    [[16, 32, 48], [128, 0, 0]]
    """
    palette = voc_palette(labels).copy()
    for label, colour in enumerate(colours):
        palette[label] = list(bytes.fromhex(colour.removeprefix("#")))
    return palette


# Pillow warns of oddities in pictures it reads all the same; the size limit is ours to keep.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def encode_label_map(labels: np.ndarray, palette: np.ndarray = VOC_PALETTE) -> bytes:
    """A label map (H, W) as PNG bytes: uint8 with a palette, uint16 as grey values of 16 bits.

    Args:
        palette: (256, 3) uint8 colours of the labels; those of 16 bits have none in the file.
    """
    if labels.dtype == np.uint16:
        return _png(Image.fromarray(np.ascontiguousarray(labels)))
    image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8), mode="P")
    image.putpalette(palette.tobytes())
    return _png(image)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def decode_label_map(data: bytes) -> np.ndarray:
    """A label map (H, W) from PNG bytes, values untouched: uint8 of a palette or grey one, uint16 of 16 bits.

    Raises:
        UnreadableImage: not a single-channel picture of 8 or 16 bits.
    """
    with Image.open(io.BytesIO(data)) as image:
        if image.mode not in LABEL_MODES:
            raise UnreadableImage(f"a label map must be a palette or grey PNG, not mode {image.mode}")
        return np.array(image, dtype=LABEL_MODES[image.mode])


def encode_grey(values: np.ndarray) -> bytes:
    """An (H, W) uint8 array as grey PNG bytes."""
    return _png(Image.fromarray(np.ascontiguousarray(values, dtype=np.uint8), mode="L"))


@dataclass(frozen=True)
class DecodedImage:
    """A decoded picture.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, image pixels, upright.
        notes: what was done to it beyond decoding, for people.
    """

    pixels: np.ndarray
    notes: tuple[str, ...] = ()


# Pictures are decoded on several threads; of large ones, which take gigabytes on the way, one at a time.
_LARGE_PIXELS = 16_000_000
_ONE_LARGE = Lock()
_ONE_OPENED = Lock()
"""The same one may be given several times, and Pillow decodes none on two threads."""


def decode_image(data: bytes, max_pixels: int, side: int | None = None) -> DecodedImage:
    """Decode a picture as a viewer shows it.

    EXIF rotation is applied, colours are brought to sRGB by the embedded profile, more than 8 bits are scaled (not
    saturated) from the range they are in, transparency is laid on white, an animation gives its first frame, a TIFF
    the first page that is no reduced copy.

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
        page = find_page(data)
        opened = None if page and page.misread_by_pillow else _open(data, page)
        if opened is None:
            assert page
            with _ONE_LARGE:
                return _of_bands(read_bands(data, page, max_pixels), page)
        with opened as image:
            if image.width * image.height > max_pixels:
                raise UnreadableImage(f"{image.width}x{image.height} pixels are over the limit of {max_pixels}")
            with _ONE_LARGE if image.width * image.height > _LARGE_PIXELS else nullcontext():
                if side:
                    image.draft(None, (side, side))
                lower = lower_bytes(image)
                image.load()  # first: after a failed look at the EXIF it would give half a picture
                notes = spread(image, _open(data, page), lower) if lower and uses_little(image) else []
                return _upright_rgb(image, page, notes)
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise nearly any type on hostile bytes
        raise UnreadableImage(_one_line(error)) from error


def flatten_image(image: Image.Image, max_pixels: int) -> DecodedImage:
    """A picture that somebody else has opened, as `decode_image` makes it of the file; it is left as it is.

    What Pillow reads otherwise than a viewer shows (some TIFFs, 16 bits of which few are used) stays as Pillow has it.

    Raises:
        UnreadableImage: with the reason in one line.
    """
    if image.width * image.height > max_pixels:
        raise UnreadableImage(f"{image.width}x{image.height} pixels are over the limit of {max_pixels}")
    try:
        with _ONE_OPENED:
            image.load()  # nothing may be decoded yet
        notes = ["EXIF orientation applied"] if _turned(image) else []
        return _upright_rgb(ImageOps.exif_transpose(image), None, notes)
    except Exception as error:  # as in decode_image
        raise UnreadableImage(_one_line(error)) from error


def _open(data: bytes, page: Page | None) -> Image.Image | None:
    """The picture, not yet decoded; None for a page of a TIFF in a kind that Pillow does not know."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if page and page.index:
            image.seek(page.index)
        if says_its_bits(data):
            image.info[FULL_RANGE] = True
    except (UnidentifiedImageError, SyntaxError):  # the latter when another page is looked at
        if data.startswith(b"P7"):
            raise UnreadableImage("a portable map of the kind PAM (P7) is not read; convert it to PNG or PPM") from None
        if page is None:
            raise
        return None
    return image


def _one_line(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"over any limit: more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels (decompression bomb)"
    message = " ".join(str(error).split())
    if "cannot identify image file" in message:
        return UNKNOWN
    return f"cannot be decoded: {message or in_words(error)}"[:300]


_ON_WHITE = "transparency laid on white"


def _upright_rgb(image: Image.Image, page: Page | None, notes: list[str]) -> DecodedImage:
    """Turn, flatten and convert; in place where it can be, for a copy of 100 million pixels is 400 MB."""
    if page.several if page else _several(image):
        several = "several pictures in the file" if image.format in ("MPO", "TIFF") else "animation"
        notes.append(f"{several}: only the first is used")
    if page and page.note:
        notes.append(page.note)
    if _turned(image):
        notes.append("EXIF orientation applied")
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = grey_in_8_bits(image, page, notes)
    gamma = image.info.get("gamma")
    if gamma and abs(gamma - _SRGB_GAMMA) > 0.05 and not {"srgb", "icc_profile"} & image.info.keys():
        notes.append(f"the file's gamma {gamma:g} is not applied")
    return _flat(image, page, notes)


_SRGB_GAMMA = 0.45455
"""What a PNG says of values as screens take them."""


def _flat(image: Image.Image, page: Page | None, notes: list[str]) -> DecodedImage:
    """A picture of 8 bits in sRGB, laid on white where it is transparent."""
    profile, alpha = image.info.get("icc_profile"), None
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        kind = "L" if image.mode in ("L", "LA", "La") else "RGB"
        image = image.convert("LA") if image.mode == "La" else image
        image = image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
        alpha, image = image.getchannel("A"), image.convert(kind)
        if page and not _is_opacity(alpha, image, page):
            notes.append(_no_opacity(len(kind) + 1, page))
            alpha = None
    elif page and page.left_out and not any("bands" in note for note in notes):
        notes.append(f"{page.left_out} of {page.samples} bands left out")
    rgb, converted = to_rgb(image, profile)
    notes += [converted] if converted else []
    if alpha is not None and alpha.getextrema() != (255, 255):
        notes.append(_ON_WHITE)
        white = Image.new("RGB", rgb.size, (255, 255, 255))
        white.paste(rgb, mask=alpha)
        rgb = white
    pixels = np.asarray(rgb)
    return DecodedImage(pixels, (*notes, *_poor_contrast(pixels)))


def _no_opacity(band: int, page: Page) -> str:
    return f"band {band} of {page.samples} is said to be opacity and is a picture: left out"


def _divides(opacity: np.ndarray, colours: np.ndarray, page: Page) -> bool:
    """Whether colours may have been multiplied by a band: none is above it, where it is opacity at all."""
    return not (colours > opacity[..., None]).any() and _is_opacity(opacity, colours, page)


def _is_opacity(alpha: Image.Image | np.ndarray, colours: Image.Image | np.ndarray, page: Page) -> bool:
    """Whether a band of a TIFF is the opacity that it is said to be: programs also call near infrared so.

    Opacity is mostly all or nothing; where it is not, it does not follow the picture.
    """
    values = np.asarray(alpha)
    if ((values == 0) | (values == 255)).mean() >= 0.5:
        return True
    if page.geographic:
        return False
    step = max(1, values.size // 100_000)
    with np.errstate(invalid="ignore", divide="ignore"):  # an even band follows nothing
        bands = [values.reshape(-1, 1)[::step], np.asarray(colours).reshape(values.size, -1)[::step]]
        follows = np.abs(np.asarray(np.corrcoef(np.column_stack(bands).T.astype(np.float64))))
    return not (np.nan_to_num(follows[0, 1:]) > 0.3).any()


def _poor_contrast(pixels: np.ndarray) -> list[str]:
    """A note on a picture in which little can be seen: it may have been read in the wrong range."""
    low, high = int(pixels.min()), int(pixels.max())
    if high - low >= 32 or pixels.shape[0] * pixels.shape[1] == 1:
        return []
    if (pixels == pixels[0, 0]).all():
        return ["blank: all pixels are alike"]
    return [f"hardly any contrast: all values lie between {low} and {high} of 255"]


def _of_bands(bands: Bands, page: Page) -> DecodedImage:
    """A TIFF's page from its values."""
    notes = ["several pictures in the file: only the first is used"] if page.several else []
    notes += [page.note] if page.note else []
    colour, range_notes = to_8_bits(bands.colour)
    notes += [*bands.notes, *range_notes]
    if page.white_is_zero:
        colour = 255 - colour
    planes = [colour[..., i] for i in range(colour.shape[-1])]
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[len(planes)]
    if bands.opacity is not None:
        opacity = to_8_bits(bands.opacity)[0]
        if bands.premultiplied and not _divides(opacity, colour, page):
            notes.append(_no_opacity(len(planes) + 1, page))
        else:
            planes.append(opacity)
            mode += "a" if bands.premultiplied else "A"
    image = Image.merge(mode, [Image.fromarray(np.ascontiguousarray(plane)) for plane in planes])
    if profile := page.tags.get(ICC_PROFILE):
        image.info["icc_profile"] = profile
    if (turn := page.number(ORIENTATION, 1)) in range(2, 9):
        notes.append("EXIF orientation applied")
        image.getexif()[ORIENTATION] = turn
        ImageOps.exif_transpose(image, in_place=True)
    return _flat(image, page, notes)


def _several(image: Image.Image) -> bool:
    """Whether there are more pictures in the file; they are not counted."""
    try:
        return getattr(image, "is_animated", False)
    except Exception:  # a damaged second one; the first has been read
        return True


def _turned(image: Image.Image) -> bool:
    """Whether a viewer turns or mirrors it; an XMP packet may say so where EXIF does not."""
    return image.getexif().get(ORIENTATION, 1) in range(2, 9)


COMMENT = 200
"""Characters of a picture's comment that are kept."""
_DESCRIPTION, _EXIF, _USER_COMMENT = 0x010E, 0x8769, 0x9286


def image_comment(data: bytes) -> str:
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
