"""Names that the photo model knows, each with the ImageNet classes it stands for.

A name stands for the ImageNet classes below its WordNet synsets (all of them, where it has several), so that
"dog" is the 118 breeds and "sea lion" is itself. WordNet 3.0 is read from the files of Debian's `wordnet-base`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import yaml

WORDNET = Path("/usr/share/wordnet/data.noun")
WIDEST = 220
"""A name with more classes below it ("whole", "artifact") says too little of a picture."""
_HYPERNYMS = ("@", "@i")
_ALIASES = Path(__file__).parent / "aliases.yaml"
_SYNONYMS = Path(__file__).parent / "synonyms.yaml"


@dataclass(frozen=True)
class Synset:
    """A meaning: its words, and the meanings it is a kind of."""

    words: tuple[str, ...]
    above: tuple[str, ...]


def read_wordnet(file: Path = WORDNET) -> dict[str, Synset]:
    """All nouns by id (`n` and the offset in the file, as ImageNet names its classes)."""
    synsets = {}
    for line in file.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("  "):
            continue
        fields = line.split(" | ")[0].split()
        count = int(fields[3], 16)
        words = tuple(clean(fields[4 + 2 * i]) for i in range(count))
        pointers = fields[5 + 2 * count :]
        above = tuple(
            f"n{pointers[i + 1]}" for i in range(0, 4 * int(fields[4 + 2 * count]), 4) if pointers[i] in _HYPERNYMS
        )
        synsets[f"n{fields[0]}"] = Synset(words, above)
    return synsets


def clean(name: str) -> str:
    """A name as captions have it: lower case, hyphens and underscores are spaces.

    >>> clean("Jack-o'-lantern"), clean("sea_lion")
    ("jack o' lantern", 'sea lion')
    """
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def ancestors(synsets: dict[str, Synset], one: str) -> set[str]:
    """A meaning and all it is a kind of."""
    found, todo = set(), [one]
    while todo:
        if (current := todo.pop()) not in found:
            found.add(current)
            todo.extend(synsets[current].above)
    return found


def build_vocabulary(ids: list[str], extra: list[str]) -> dict[str, frozenset[int]]:
    """Names to ImageNet classes (0..999), which may be none for names that photographs are labelled with.

    Args:
        ids: of the 1,000 classes, in the classifier's order.
        extra: names to have in any case, such as COCO's.
    """
    synsets = read_wordnet()
    below: dict[str, set[int]] = defaultdict(set)
    for number, one in enumerate(ids):
        for meaning in ancestors(synsets, one):
            below[meaning].add(number)
    names: dict[str, set[int]] = defaultdict(set)
    for meaning, classes in below.items():
        if len(classes) <= WIDEST:
            for word in synsets[meaning].words:
                names[word] |= classes
    for name, meanings in yaml.safe_load(_ALIASES.read_text()).items():
        names[clean(name)] = set().union(*(below.get(word) or names[clean(word)] for word in meanings))
    for name in extra:
        names.setdefault(clean(name), set())
    return {name: frozenset(classes) for name, classes in sorted(names.items())}


def read_synonyms() -> dict[str, list[str]]:
    """Everyday words by the name whose concept they share."""
    return yaml.safe_load(_SYNONYMS.read_text())
