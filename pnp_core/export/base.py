"""What every format has in common."""

from __future__ import annotations

import io
from types import TracebackType
from typing import Protocol, runtime_checkable

from PIL import Image

from pnp_core.data import IGNORE
from pnp_core.errors import UsageError
from pnp_core.export.labelled import Finished, Labelled
from pnp_core.inputs.images import decode_image

JPEG_QUALITY = 95
JPEG_SIDE = 65_500
_MOST_PIXELS = 178_956_970


@runtime_checkable
class Writer(Protocol):
    """Takes pictures with their masks, one by one; what belongs to all of them is written at the end.

    One that has splits or single instances says so in its class: `takes`, a set of `val` and `instances`; one whose
    masks have no void by `has_void = False`.
    """

    def __enter__(self) -> Writer:
        """Begin."""
        ...

    def add(self, image: Labelled) -> None:
        """Write one."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the rest, unless something went wrong."""
        ...


def upright_jpeg(name: str, image: bytes) -> bytes:
    """The picture as training code should see it: JPEG files that need no turning as they are, all else as an upright
    RGB JPEG, so that the mask fits whatever reads it.

    Args:
        name: of the picture, for an error.

    Raises:
        UsageError: it is too long for JPEG.
    """
    if _is_upright_jpeg(image):
        return image
    buffer = io.BytesIO()
    pixels = decode_image(image, _MOST_PIXELS).pixels
    if max(pixels.shape) > JPEG_SIDE:
        raise UsageError(
            f"picture '{name}' has a side of {max(pixels.shape)} pixels, and JPEG ends at {JPEG_SIDE}: use --to hf, or "
            f"--no-pictures"
        )
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _is_upright_jpeg(image: bytes) -> bool:
    if not image.startswith(b"\xff\xd8"):
        return False
    with Image.open(io.BytesIO(image), formats=["JPEG"]) as opened:
        return opened.format == "JPEG" and opened.mode in ("RGB", "L") and opened.getexif().get(0x0112, 1) == 1


def require_8_bits(finished: Finished, what: str, by_place: bool = False) -> None:
    """Find out whether the labels fit masks of 8 bits.

    Args:
        what: has no other ones, for an error.
        by_place: its masks hold the places of classes, not their labels.

    Raises:
        UsageError: they do not.
    """
    highest = max(finished.places.values() if by_place else finished.ids)
    if highest >= IGNORE:
        has = f"ids up to {highest}" if highest > len(finished.classes) else f"{len(finished.classes)} classes"
        raise UsageError(
            f"'{finished.url}' has {has}, and masks of {what} have {IGNORE - 1} at most: use "
            f"--to png, hf, webdataset, coco-rle, yolo, labelstudio or cvat"
        )


def base_name(source: str) -> str:
    r"""The last part of a path or URL of unknown origin.

    >>> base_name("s3://bucket/a/b.jpg"), base_name("c:\\pictures\\b.jpg"), base_name("scenes/test/5")
    ('b.jpg', 'b.jpg', '5')
    """
    return source.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
