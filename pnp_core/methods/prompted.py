"""Several prompts of a class, whatever the method: each is a question of its own, and of a class the best counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from pnp_core.errors import UsageError
from pnp_core.methods import method_of
from pnp_core.methods.base import LoadedMethod, MethodConfig, Seen

Groups = tuple[tuple[int, ...], ...]
"""Of each class from label 1 the numbers of its questions, from 1 on in the order of the classes."""


def groups_of(prompts: Sequence[Sequence[str]]) -> Groups:
    """The questions of each class.

    >>> groups_of([["cat"], ["dog", "puppy"]])
    ((1,), (2, 3))
    """
    ends = np.cumsum([0, *map(len, prompts)]).tolist()
    return tuple(tuple(range(start + 1, end + 1)) for start, end in pairwise(ends))


def askable_groups(config: MethodConfig, prompts: Sequence[Sequence[str]], labels: Sequence[int]) -> Groups:
    """The questions of each class that a method can be asked about.

    Args:
        labels: of the classes that somebody wants to ask about; others have no questions.

    Raises:
        UsageError: there is none.
    """
    groups, texts = groups_of(prompts), list(chain.from_iterable(prompts))
    asked = {question: texts[question - 1] for label in labels for question in groups[label - 1]}
    can = set(method_of(config).askable(config, asked))
    return tuple(tuple(question for question in group if question in can) for group in groups)


class Prompted(LoadedMethod):
    """A method whose classes are its own questions, asked about classes that have several of them.

    Where the method matches, each image is looked at with the prompt of each class that fits it best: as if the class
    had that prompt alone. Other methods look at all of them, and of maps, scores and similarities the largest count.

    Args:
        method: loaded with all prompts as captions.
        groups: the questions of each class.
        matches: whether it has a match score.
    """

    def __init__(self, method: LoadedMethod, groups: Groups, matches: bool) -> None:
        self._method, self._groups, self._matches = method, groups, matches
        self._class_of = {question: label for label, group in enumerate(groups, 1) for question in group}
        self._batch: Any = None
        self._matched: dict[int, Float[np.ndarray, " B"]] = {}
        self.overflow = method.overflow

    def check(self, labels: tuple[int, ...]) -> None:
        """All prompts of some classes."""
        self._method.check(self._questions(labels))

    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        """As the method does."""
        return self._method.prepare(image)

    def prepare_keyed(self, key: str, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        """As the method does."""
        return self._method.prepare_keyed(key, image)

    def encode(self, prepared: Sequence[Any]) -> Any:
        """As the method does."""
        self._forget()
        return self._method.encode(prepared)

    def match(self, batch: Any, labels: tuple[int, ...]) -> Float[np.ndarray, "B C"]:
        """Match probability of each class's best prompt."""
        questions = self._questions(labels)
        found = self._method.match(batch, questions)
        self._remember(batch, questions, found)
        return self._best(found, labels)

    def match_each(self, batch: Any, labels: Sequence[tuple[int, ...]]) -> list[Float[np.ndarray, " C"]]:
        """Match probability of each image's own classes, of each its best prompt."""
        found = self._method.match_each(batch, [self._questions(own) for own in labels])
        return [self._best(row[None], own)[0] for row, own in zip(found, labels, strict=True)]

    def similarity(self, batch: Any, labels: tuple[int, ...]) -> Float[np.ndarray, "B C"]:
        """Similarity of each class's best prompt."""
        return self._best(self._method.similarity(batch, self._questions(labels)), labels)

    def look(self, batch: Any, classes: Mapping[int, tuple[int, ...]]) -> dict[int, Seen]:
        """Maps of each class: of the prompt that fits the image best, or the largest of all of them."""
        try:
            if self._matches:
                questions = self._fitting(batch, classes)
            else:
                questions = {place: self._questions(own) for place, own in classes.items()}
            seen = self._method.look(batch, questions)
        finally:  # also when memory is out: a batch that is kept would be in the way of its halves
            self._forget()
        return {place: self._of_classes(one, questions[place]) for place, one in seen.items()}

    def _questions(self, labels: Sequence[int]) -> tuple[int, ...]:
        return tuple(question for label in labels for question in self._groups[label - 1])

    def _forget(self) -> None:
        self._batch, self._matched = None, {}

    def _remember(self, batch: Any, questions: Sequence[int], found: Float[np.ndarray, "B Q"]) -> None:
        """Keep what was matched until the batch is looked at."""
        if batch is not self._batch:
            self._batch, self._matched = batch, {}
        self._matched |= dict(zip(questions, found.T, strict=True))

    def _fitting(self, batch: Any, classes: Mapping[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
        """By place in the batch of each class the prompt that matches best; of equal ones the first."""
        labels = sorted(set(chain.from_iterable(classes.values())))
        several = self._questions([label for label in labels if len(self._groups[label - 1]) > 1])
        known = self._matched if batch is self._batch else {}
        if new := tuple(question for question in several if question not in known):
            self._remember(batch, new, self._method.match(batch, new))

        def best(place: int, label: int) -> int:
            group = self._groups[label - 1]
            return group[0] if len(group) == 1 else max(group, key=lambda question: self._matched[question][place])

        return {place: tuple(best(place, label) for label in own) for place, own in classes.items()}

    def _best(self, found: Float[np.ndarray, "B Q"], labels: Sequence[int]) -> Float[np.ndarray, "B C"]:
        """Of the questions of each class the largest."""
        return _largest(found, [len(self._groups[label - 1]) for label in labels], axis=1)

    def _of_classes(self, seen: Seen, questions: Sequence[int]) -> Seen:
        """What was seen of questions as of their classes."""
        labels = [self._class_of[question] for question in questions]
        sizes = [labels.count(label) for label in dict.fromkeys(labels)]
        return self._put_together(seen, sizes)

    def _put_together(self, seen: Seen, sizes: Sequence[int]) -> Seen:
        """Maps that say what they are of stay several of a class, which the method's `decide` takes."""
        parts = tuple(self._put_together(part, sizes) for part in seen.parts)
        match = None if seen.match is None else _largest(seen.match, sizes, axis=0)
        if seen.of:
            of = tuple(self._class_of[question] if question else 0 for question in seen.of)
            return Seen(seen.maps, match, of, parts)
        return replace(seen, maps=_largest(seen.maps, sizes, axis=1), match=match, parts=parts)


def _largest(values: np.ndarray, sizes: Sequence[int], axis: int) -> np.ndarray:
    """Along an axis the largest of each of some groups that lie one behind the other.

    >>> _largest(np.array([1, 5, 3, 2]), [1, 2, 1], axis=0).tolist()
    [1, 5, 2]
    """
    if values.shape[axis] == len(sizes):
        return values
    return np.maximum.reduceat(values, np.cumsum([0, *sizes[:-1]]), axis=axis)


def prompted(loaded: LoadedMethod, config: MethodConfig, prompts: Sequence[Sequence[str]]) -> Prompted:
    """A loaded method, asked about classes that have several prompts.

    Args:
        loaded: with all prompts as captions, in the order of `groups_of`.

    Raises:
        UsageError: it can be asked about none of them.
    """
    groups = askable_groups(config, prompts, range(1, len(prompts) + 1))
    if not any(groups):
        raise UsageError(f"{config.name} can be asked about none of the prompts")
    return Prompted(loaded, groups, config.matches)
