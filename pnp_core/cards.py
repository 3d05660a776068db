"""Dataset cards: one YAML each in `datasets/`, and the readers of the layouts they name."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import yaml
from PIL import Image
from pydantic import Field

from pnp_core import scenes
from pnp_core.config import Config
from pnp_core.errors import UnknownNameError
from pnp_core.images import encode_label_map
from pnp_core.records import Sample


class DatasetCard(Config):
    """What is known of a dataset without looking at its files."""

    name: str
    version: int
    title: str
    layout: Literal["scenes"]
    """Which reader understands the files."""
    task: Literal["object", "scene"]
    """Object data always gets a background channel, scene data only with few candidates."""
    splits: tuple[str, ...]
    classes: tuple[str, ...] = Field(min_length=1, max_length=254)
    """Names in label order, from label 1."""
    terms: str

    @property
    def background_rule(self) -> Literal["always", "few"]:
        """How `masks.background: auto` reads for this dataset."""
        return "always" if self.task == "object" else "few"


def _folders() -> list[Path]:
    # The installed copy first: "datasets" in a checkout could be shadowed in site-packages.
    here = Path(__file__).parent
    return [here / "_cards", here.parent / "datasets"]


def available_cards() -> dict[str, Path]:
    """Name -> file of every card."""
    folder = next(f for f in _folders() if f.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_card(name: str) -> DatasetCard:
    """Read a card.

    Raises:
        UnknownNameError: no such dataset.
    """
    cards = available_cards()
    if name not in cards:
        raise UnknownNameError("dataset", name, cards)
    return DatasetCard.model_validate(yaml.safe_load(cards[name].read_text(encoding="utf-8")))


def _read_scenes(card: DatasetCard, split: str) -> Iterator[Sample]:
    index = 0
    while True:
        scene = scenes.make_scene(split, index)
        picture, labels = scenes.render(scene)
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="PNG", compress_level=1)
        yield Sample(
            key=f"{split}_{index:05d}",
            image=buffer.getvalue(),
            extension="png",
            source=f"scenes/{split}/{index}",
            label_map=encode_label_map(labels),
            classes=scene.class_ids,
        )
        index += 1


_READERS: dict[str, Callable[[DatasetCard, str], Iterator[Sample]]] = {"scenes": _read_scenes}


def check_split(card: DatasetCard, split: str) -> None:
    """Raise UnknownNameError when the dataset has no such split."""
    if split not in card.splits:
        raise UnknownNameError(f"split of dataset {card.name}", split, card.splits)


def read_samples(card: DatasetCard, split: str) -> Iterator[Sample]:
    """Pictures, ground truth and image-level labels of a split, in a fixed order.

    Raises:
        UnknownNameError: the dataset has no such split.
    """
    check_split(card, split)
    return _READERS[card.layout](card, split)
