"""The bundled scenes as a dataset."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from pnp_core import scenes
from pnp_core.cards import DatasetCard
from pnp_core.readers.base import labelled_sample
from pnp_core.records import Sample
from pnp_core.store import fingerprint


@dataclass(frozen=True)
class SceneDataset:
    """Scenes drawn from a seed; a `Dataset`. There is no end to them: `samples` goes on."""

    card: DatasetCard
    split: str
    count: int
    only: tuple[int, ...] | None = None

    @property
    def identity(self) -> str:
        """What the pictures are."""
        return f"dataset {self.card.name}, split {self.split}"

    def __len__(self) -> int:
        return self.count

    def digest(self, limit: int | None) -> str:
        """The drawing is fixed by the card's version."""
        return fingerprint(self.card.model_dump(), self.split, limit or self.count, self.only)

    def samples(self) -> Iterator[Sample]:
        """The scenes in order."""
        index = 0
        while True:
            scene = scenes.make_scene(self.split, index)
            picture, labels = scenes.render(scene)
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, format="PNG", compress_level=1)
            sample = Sample(
                key=f"{self.split}_{index:05d}",
                image=buffer.getvalue(),
                extension="png",
                source=f"scenes/{self.split}/{index}",
                classes=scene.class_ids,
            )
            if labelled := labelled_sample(sample, labels, self.only, self.card.background):
                yield labelled
            index += 1
