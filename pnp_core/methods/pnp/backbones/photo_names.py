"""The vocabulary of the bundled photo model: a token for each name, and one for its synonyms too.

Light, because it is asked before anything is loaded.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from pnp_core.bundled import PACKAGE

FILE = "vocabulary.json"
FOLDER = PACKAGE / "_photo"
PAD, UNKNOWN, ENC, SEP = range(4)
"""Tokens that stand for no name."""
_WORD = re.compile(r"[^\W_]+(?:['.][^\W_]+)*\.?")


def words_of(name: str) -> tuple[str, ...]:
    """A name's words, lower case; hyphens and underscores separate words as spaces do.

    >>> words_of("Jack-o'-lantern"), words_of("sea_lion")
    (('jack', 'o', 'lantern'), ('sea', 'lion'))
    """
    return tuple(word.lower().rstrip(".") for word in _WORD.findall(name))


@dataclass(frozen=True)
class Piece:
    """A part of a caption: its token, and the characters it stands for."""

    token: int
    start: int
    end: int


@dataclass(frozen=True)
class Vocabulary:
    """Names and their tokens; names that mean the same share one."""

    tokens: Mapping[tuple[str, ...], int]

    @property
    def names(self) -> list[str]:
        """All of them, in order."""
        return sorted(" ".join(words) for words in self.tokens)

    @cached_property
    def _longest(self) -> int:
        return max(len(words) for words in self.tokens)

    @cached_property
    def _compounds(self) -> dict[str, int]:
        """Names written as one word, such as `pottedplant`."""
        return {"".join(words): token for words, token in self.tokens.items() if len(words) > 1}

    def token(self, words: tuple[str, ...]) -> int | None:
        """Of a name, in the singular or the plural, its words apart or together; None when it is unknown."""
        for last in _singulars(words[-1]):
            found = self.tokens.get((*words[:-1], last))
            found = self._compounds.get(last) if found is None and len(words) == 1 else found
            if found is not None:
                return found
        return None

    def pieces(self, text: str) -> Iterator[Piece]:
        """A caption from left to right, the longest known name first; a word that begins none is UNKNOWN."""
        found = list(_WORD.finditer(text))
        words = tuple(word for match in found for word in words_of(match.group()))
        at = 0
        while at < len(found):
            token, count = self._longest_from(words[at : at + self._longest])
            yield Piece(token, found[at].start(), found[at + count - 1].end())
            at += count

    def _longest_from(self, words: tuple[str, ...]) -> tuple[int, int]:
        """Token of the longest name that some words begin with, and of how many words it is."""
        for count in range(len(words), 0, -1):
            if (token := self.token(words[:count])) is not None:
                return token, count
        return UNKNOWN, 1

    def knows(self, name: str) -> bool:
        """Whether there is a token for the whole of a name."""
        words = words_of(name)
        return bool(words) and self.token(words) is not None

    def nearest(self, name: str, number: int = 3) -> list[str]:
        """Known names that are written alike, share the last word or begin alike; the best first.

        >>> Vocabulary({("sea", "lion"): 9, ("lion",): 8, ("car",): 7}).nearest("see lion")
        ['sea lion', 'lion']
        """
        known = {" ".join(words): words for words in self.tokens}
        alike = difflib.get_close_matches(" ".join(words_of(name)), known, n=number, cutoff=0.75)
        last = words_of(name)[-1:]
        same_kind = sorted((words for words in self.tokens if words[-1:] == last), key=len)
        begun = sorted((words for words in self.tokens if words[0].startswith("".join(words_of(name)) or "-")), key=len)
        return list(dict.fromkeys([*alike, *(" ".join(words) for words in (*same_kind, *begun))]))[:number]


def _singulars(word: str) -> Iterator[str]:
    """A word, and what it may be the plural of."""
    yield word
    if word.endswith("ies"):
        yield word[:-3] + "y"
    if word.endswith("es"):
        yield word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        yield word[:-1]


@lru_cache(maxsize=4)
def read_vocabulary(folder: Path = FOLDER) -> Vocabulary:
    """Of a checkpoint folder."""
    raw = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return Vocabulary({tuple(name.split()): token for name, token in raw.items()})
