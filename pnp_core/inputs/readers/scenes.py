"""The bundled scenes as a dataset."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import count

from PIL import Image

from pnp_core.data import Sample
from pnp_core.inputs.cards import DatasetCard
from pnp_core.inputs.readers.base import labelled_sample
from pnp_core.inputs.scenes import drawing
from pnp_core.inputs.sources import shuffle
from pnp_core.storage.run_folder import fingerprint


@dataclass(frozen=True)
class SceneDataset:
    """Scenes drawn from a seed; a `Dataset`. There is no end to them: `samples` goes on, unless indices are given.

    Attributes:
        truth: whether samples come with their label map.
        indices: which scenes, in which order.
    """

    card: DatasetCard
    split: str
    count: int
    only: tuple[int, ...] | None = None
    truth: bool = True
    indices: tuple[int, ...] | None = None

    @property
    def identity(self) -> str:
        """What the pictures are."""
        return f"dataset {self.card.name}, split {self.split}"

    def __len__(self) -> int:
        return self.count if self.indices is None else len(self.indices)

    def digest(self, limit: int | None) -> str:
        """The drawing is fixed by the card's version."""
        order = [] if self.indices is None else [self.indices]
        return fingerprint(self.card.facts(), self.split, limit or self.count, self.only, *order)

    def shuffled(self, seed: int) -> SceneDataset:
        """All scenes of the split, in a random order."""
        return replace(self, indices=tuple(shuffle(range(len(self)), seed)))

    def restricted(self, keys: Collection[str]) -> SceneDataset:
        """The scenes with some keys."""
        indices = range(self.count) if self.indices is None else self.indices
        return replace(self, indices=tuple(i for i in indices if self._key(i) in keys))

    def with_truth(self, ground_truth: str | None = None) -> SceneDataset:
        """The same scenes with their masks, which are drawn with them."""
        return replace(self, truth=True)

    def unlisted(self) -> list[str]:
        """None: there are no others."""
        return []

    def _key(self, index: int) -> str:
        return f"{self.split}_{index:05d}"

    def samples(self) -> Iterator[Sample]:
        """The scenes in order."""
        for index in count() if self.indices is None else self.indices:
            scene = drawing.make_scene(self.split, index)
            image, labels = drawing.render(scene)
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
            sample = Sample(
                key=self._key(index),
                image=buffer.getvalue(),
                extension="png",
                source=f"scenes/{self.split}/{index}",
                classes=scene.class_ids,
            )
            truth = labels if self.truth else None
            if labelled := labelled_sample(sample, truth, self.only, self.card.background):
                yield labelled
