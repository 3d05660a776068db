"""What every format has in common."""

from __future__ import annotations

import io
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import yaml
from PIL import Image

from pnp_core.export.pictures import Labelled
from pnp_core.images import VOC_PALETTE, decode_image

JPEG_QUALITY = 95
_MOST_PIXELS = 178_956_970


@runtime_checkable
class Writer(Protocol):
    """Takes pictures with their masks, one by one; what belongs to all of them is written at the end."""

    def __enter__(self) -> Writer:
        """Begin."""
        ...

    def add(self, picture: Labelled) -> None:
        """Write one."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the rest, unless something went wrong."""
        ...


def upright_jpeg(image: bytes) -> bytes:
    """The picture as training code should see it: JPEG files that need no turning as they are, all else as an upright
    RGB JPEG, so that the mask fits whatever reads it.
    """
    with Image.open(io.BytesIO(image)) as opened:
        as_it_is = opened.format == "JPEG" and opened.mode in ("RGB", "L") and opened.getexif().get(0x0112, 1) == 1
    if as_it_is:
        return image
    buffer = io.BytesIO()
    pixels = decode_image(image, _MOST_PIXELS).pixels
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def colour_of(label: int) -> list[int]:
    """The Pascal VOC colour of a label."""
    return VOC_PALETTE[label].tolist()


def yaml_text(values: dict[str, Any]) -> str:
    """YAML in the order given."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
