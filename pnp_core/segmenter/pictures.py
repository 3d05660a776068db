"""Pictures as a program has them: paths, Pillow's images, arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pnp_core.data import Sample
from pnp_core.errors import SourceError
from pnp_core.inputs.images import DecodedImage, decode_image, flatten_image
from pnp_core.inputs.sources.base import FileRef, NotReadError
from pnp_core.inputs.sources.keys import UniqueNames, printable, safe_key, split_ending

Picture = str | os.PathLike[str] | Image.Image | np.ndarray
"""A path or URL, an image of Pillow's, or an array (H, W, 3) of RGB or (H, W) of grey, uint8."""


@dataclass(frozen=True)
class GivenPicture:
    """A picture that somebody gave, not read yet, and the sample that stands for it in the stages."""

    sample: Sample
    given: Picture

    def decode(self, max_pixels: int) -> DecodedImage:
        """Its pixels.

        Raises:
            SourceError: there is no such file, or it cannot be read.
            UnreadableImage: it cannot be decoded, or has too many pixels.
        """
        if isinstance(self.given, Image.Image):
            return flatten_image(self.given, max_pixels)
        if isinstance(self.given, np.ndarray):
            return flatten_image(Image.fromarray(np.ascontiguousarray(self.given)), max_pixels)
        try:
            return decode_image(FileRef.of(os.fspath(self.given)).on_this_thread().read(), max_pixels)
        except NotReadError as error:
            raise SourceError(f"image '{self.sample.source}' {error}") from error


def given_pictures(images: Iterable[Any]) -> Iterator[GivenPicture]:
    """The pictures in order, each under a key of its own: a file's name, or its place among them from 0.

    Raises:
        SourceError: one is nothing of the kind.
    """
    unique = UniqueNames()
    for number, given in enumerate(images):
        here = f"image {number}"
        if isinstance(given, np.ndarray):
            _refuse_other_arrays(given, here)
        if isinstance(given, np.ndarray | Image.Image):
            yield GivenPicture(Sample(safe_key(unique(here.replace(" ", "-"))), b"", "none", here), given)
        elif isinstance(given, str | os.PathLike) and isinstance(path := os.fspath(given), str):
            name = path.rsplit("/", 1)[-1]
            key = safe_key(unique(split_ending(name)[0]))
            yield GivenPicture(Sample(key, b"", "none", printable(path), name=printable(name)), given)
        else:
            raise SourceError(
                f"{here} is of the type {type(given).__name__}: give a path, a PIL image, an array, or a list of them"
            )


def _refuse_other_arrays(array: np.ndarray, here: str) -> None:
    grey_or_rgb = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype == np.uint8 and grey_or_rgb and array.size:
        return
    shape = "x".join(map(str, array.shape)) or "a single number"
    raise SourceError(
        f"{here} is an array of {array.dtype}, {shape}: it must be of uint8 (0..255), HxWx3 (RGB) or HxW (grey)"
    )
