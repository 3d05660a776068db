"""The training photographs, and what is known of each: names, never a mask."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from pnp_core.inputs.cards import load_card
from training.photo.vocabulary import build_vocabulary, clean, read_synonyms


@dataclass(frozen=True)
class Photo:
    """A photograph: its ImageNet class, or all its COCO classes by name."""

    file: Path
    imagenet: int | None = None
    coco: tuple[str, ...] = ()

    @property
    def things(self) -> tuple[int | str, ...]:
        """What is on it: an ImageNet class, or COCO's names."""
        return self.coco if self.imagenet is None else (self.imagenet,)


@dataclass(frozen=True)
class Names:
    """The vocabulary; names of the same classes share a concept, and so an embedding.

    Attributes:
        concept: of each name.
        classes: ImageNet classes of each concept; none for names that only photographs are labelled with.
        labels: concepts of COCO's names.
    """

    concept: dict[str, int]
    classes: tuple[frozenset[int], ...]
    labels: frozenset[int]


def read_photos(folder: Path) -> list[Photo]:
    """ImageNet's in the order of the classes, then COCO's."""
    imagenet = [Photo(file, number) for number, file in enumerate(sorted((folder / "imagenet_sample").glob("*.jpg")))]
    with (folder / "coco_train_labels.tsv").open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))[1:]
    coco = [
        Photo(folder / "coco_train" / f"{key}.jpg", None, tuple(clean(n) for n in names.split("|") if n))
        for key, names in rows
    ]
    return imagenet + coco


def names_of(photos: list[Photo]) -> Names:
    """The vocabulary: WordNet's names of the classes and what they are kinds of, COCO's, and the aliases."""
    ids = [photo.file.name[:9] for photo in photos if photo.imagenet is not None]
    coco = [name.lower() for name in load_card("coco-object").names]
    vocabulary = build_vocabulary(ids, coco)
    concept: dict[str, int] = {}
    classes: list[frozenset[int]] = []
    known: dict[frozenset[int], int] = {}
    for name, members in vocabulary.items():
        number = known.get(members) if members else None
        if number is None:
            number = len(classes)
            classes.append(members)
            if members:
                known[members] = number
        concept[name] = number
    for name, words in read_synonyms().items():
        concept |= dict.fromkeys(words, concept[name])
    return Names(concept, tuple(classes), frozenset(concept[clean(name)] for name in coco))
