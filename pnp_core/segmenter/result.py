"""What a program gets of a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt, UInt8
from PIL import Image, ImageDraw
from PIL.Image import Resampling

from pnp_core.errors import ForeignFilesError, OutputError, UsageError
from pnp_core.inputs.images import encode_label_map
from pnp_core.masks.label_map import SoftMap
from pnp_core.report.contact_sheet import GAP, LEGEND, draw_classes, overlay
from pnp_core.report.palette import display_palette

SHOWN_SIDE = 1024
"""Longer side at most of what a notebook shows, in pixels."""


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """The mask of one picture of H x W pixels, upright.

    Attributes:
        labels: (H, W) uint8, of ids over 254 uint16: 0 is background. The same as in a mask of `pnp-ovss label`.
        classes: `background`, and the names that were given: `classes[labels[y, x]]` is a pixel's, where classes have
            no ids of their own; `names[labels[y, x]]` is it always.
        confidence: (H, W) float32, probability in [0, 1] of the label.
        asked: the classes that the picture was asked about, and how probably it holds each, in [0, 1]; None where
            neither the method nor the source of candidates says so.
        notes: what was done to read the picture, for people.
        image: (H, W, 3) uint8 RGB, the picture as it was seen.
        palette: (256 or 65536, 3) uint8, colours of the labels.
        ids: what each of `classes` is in `labels`: 0, 1, 2 ..., or the classes' own ids behind 0.
    """

    labels: UInt[np.ndarray, "H W"]
    classes: tuple[str, ...]
    confidence: Float[np.ndarray, "H W"]
    asked: Mapping[str, float | None]
    notes: tuple[str, ...]
    image: UInt8[np.ndarray, "H W 3"]
    palette: UInt8[np.ndarray, "_ 3"]
    ids: tuple[int, ...]
    soft: SoftMap | None = None
    """What `scores` are made of."""

    @property
    def names(self) -> dict[int, str]:
        """Names by label, background first."""
        return dict(zip(self.ids, self.classes, strict=True))

    @property
    def scores(self) -> Float[np.ndarray, "L H W"]:
        """Probability of each class in each pixel, (L, H, W) float32 in [0, 1], in the order of the L `classes`.

        `scores.argmax(axis=0)` is the place of `labels` among `ids` (but of equal ones), `scores.max(axis=0)` is
        `confidence`. A class that was not asked about has 0. Made anew each time.

        Raises:
            UsageError: they were not kept.
        """
        if self.soft is None:
            raise UsageError("the scores were not kept: call the segmenter with scores=True")
        return self.soft.of(self.ids, self.labels.shape)

    def overlay(self) -> Image.Image:
        """The classes' colours over the picture in pale grey, of the picture's size, RGB."""
        return Image.fromarray(overlay(self.image, self.labels, display_palette(self.labels.dtype)))

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the mask as a PNG, the same bytes as `pnp-ovss label --png` writes: with a palette, of 16 bits grey.

        Args:
            overwrite: a file of this name is replaced.

        Raises:
            UsageError: the name does not end in .png.
            ForeignFilesError: there is something of this name.
            OutputError: it cannot be written.
        """
        file = Path(path)
        if file.suffix.lower() != ".png":
            raise UsageError(f"'{path}' must end in .png: a mask is saved as a PNG")
        try:
            with file.open("wb" if overwrite else "xb") as opened:
                opened.write(encode_label_map(self.labels, self.palette))
        except FileExistsError as error:
            raise ForeignFilesError(f"'{path}' is there: choose another name, or give overwrite=True") from error
        except OSError as error:
            raise OutputError(f"cannot write '{path}': {error.strerror or error}") from error

    def __repr__(self) -> str:
        """Size, and the classes that have pixels."""
        height, width = self.labels.shape
        pixels = np.bincount(self.labels.ravel(), minlength=max(self.ids) + 1)
        shares = [f"{name} {n / self.labels.size:.0%}" for label, name in self.names.items() if (n := pixels[label])]
        return f"Segmentation({width} x {height}: {', '.join(shares)})"

    def _repr_png_(self) -> bytes:
        """How a notebook shows it: the overlay, and below it what the colours mean."""
        height, width = self.labels.shape
        scale = min(1.0, SHOWN_SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = np.asarray(Image.fromarray(self.image).resize(size, Resampling.BOX))
        labels = np.asarray(Image.fromarray(self.labels).resize(size, Resampling.NEAREST))
        palette, there = display_palette(self.labels.dtype), set(np.unique(self.labels).tolist())
        found = [place for place, label in enumerate(self.ids) if label in there and label]
        shown = Image.new("RGB", (max(size[0], 160), size[1] + LEGEND), (255, 255, 255))
        shown.paste(Image.fromarray(overlay(image, labels, palette)))
        draw_classes(
            ImageDraw.Draw(shown), (GAP, size[1]), found, self.classes[1:], palette[list(self.ids)], shown.width - 40
        )
        buffer = io.BytesIO()
        shown.save(buffer, format="PNG")
        return buffer.getvalue()
