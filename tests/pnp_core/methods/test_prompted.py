"""Several prompts of a class, with maps and scores computed by hand."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from pnp_core.methods.base import LoadedMethod, Seen
from pnp_core.methods.naclip.config import NaclipConfig
from pnp_core.methods.prompted import Prompted, askable_groups, groups_of

GROUPS = ((1,), (2, 3), (4,))
MATCH = np.array([[0.1, 0.2, 0.9, 0.4], [0.5, 0.8, 0.3, 0.4]], dtype=np.float32)
"""Of two images and four questions."""


class Table(LoadedMethod):
    """Says what the table above says; the map of question q is q everywhere, and q + 10 in the second image."""

    def __init__(self, of: bool = False) -> None:
        self.of, self.asked = of, []

    def prepare(self, image: np.ndarray) -> Any:
        return image

    def encode(self, prepared: Sequence[Any]) -> list[int]:
        return list(range(len(prepared)))

    def match(self, batch: list[int], labels: tuple[int, ...]) -> np.ndarray:
        self.asked.append(labels)
        return MATCH[:, np.array(labels) - 1]

    def similarity(self, batch: list[int], labels: tuple[int, ...]) -> np.ndarray:
        return -MATCH[:, np.array(labels) - 1]

    def look(self, batch: list[int], classes: Mapping[int, tuple[int, ...]]) -> dict[int, Seen]:
        return {place: self._seen(place, labels) for place, labels in classes.items()}

    def _seen(self, place: int, labels: tuple[int, ...]) -> Seen:
        values = np.array(labels, dtype=np.float32) + 10 * place
        maps = np.tile(values[None, :, None, None], (2, 1, 1, 1))
        maps[1] = -maps[1]
        of = (0, *labels) if self.of else ()
        maps = np.concatenate([np.zeros_like(maps[:, :1]), maps], axis=1) if self.of else maps
        match = None if self.of else MATCH[place][np.array(labels, dtype=int) - 1]
        return Seen(maps, match, of, parts=(Seen(maps, of=of),))


def test_questions_are_counted_through_the_classes():
    assert groups_of([["a"], ["b", "c"], ["d"]]) == GROUPS
    assert askable_groups(NaclipConfig(), [["a"], ["b", "c"], ["d"]], [1, 2]) == ((1,), (2, 3), ())


def test_the_best_prompt_is_the_score_of_its_class():
    method = Prompted(Table(), GROUPS, matches=True)
    assert method.match([0, 1], (1, 2, 3)).tolist() == np.array([[0.1, 0.9, 0.4], [0.5, 0.8, 0.4]], np.float32).tolist()
    each = method.match_each([0, 1], [(2, 3), (1, 2)])
    assert [row.tolist() for row in each] == np.array([[0.9, 0.4], [0.5, 0.8]], np.float32).tolist()
    assert method.similarity([0, 1], (2,)).tolist() == (-np.array([[0.2], [0.3]], np.float32)).tolist()


@pytest.mark.parametrize("matched_before", [False, True])
def test_a_method_that_matches_looks_with_the_best_prompt_of_each_image(matched_before):
    table, batch = Table(), [0, 1]
    method = Prompted(table, GROUPS, matches=True)
    if matched_before:
        method.match(batch, (1, 2, 3))
    seen = method.look(batch, {0: (2, 3), 1: (1, 2)})
    assert [one.maps[0, :, 0, 0].tolist() for one in seen.values()] == [[3, 4], [11, 12]]
    assert seen[1].match is not None
    assert seen[1].match.tolist() == MATCH[1, :2].tolist()
    assert seen[0].fits((2, 3))
    assert table.asked == ([(1, 2, 3, 4)] if matched_before else [(2, 3)])


class Full(Table):
    """Has no room to look at anything."""

    def look(self, batch: Any, classes: Mapping[int, tuple[int, ...]]) -> dict[int, Seen]:
        raise MemoryError


def test_a_batch_that_could_not_be_looked_at_or_was_not_is_not_kept():
    class Batch(list):
        """A list that can be referred to weakly."""

    method, batch = Prompted(Full(), GROUPS, matches=True), Batch([0, 1])
    left = weakref.ref(batch)
    with pytest.raises(MemoryError):
        method.look(batch, {0: (2,), 1: (2,)})
    del batch
    gc.collect()
    assert left() is None
    batch = Batch([0, 1])
    left = weakref.ref(batch)
    method.match(batch, (1,))
    del batch
    method.encode([0, 1])
    assert left() is None


def test_another_batch_is_matched_anew():
    table = Table()
    method = Prompted(table, GROUPS, matches=True)
    first, second = [0, 1], [0, 1]
    method.match(first, (1, 2, 3))
    method.look(second, {0: (2,)})
    assert table.asked == [(1, 2, 3, 4), (2, 3)]


def test_of_a_method_that_does_not_match_the_largest_of_each_pass_counts():
    seen = Prompted(Table(), GROUPS, matches=False).look([0, 1], {0: (1, 2, 3), 1: ()})
    assert seen[0].maps[:, :, 0, 0].tolist() == [[1, 3, 4], [-1, -2, -4]]
    assert seen[0].match is not None
    assert seen[0].match.tolist() == MATCH[0, [0, 2, 3]].tolist()
    assert seen[0].parts[0].maps.shape == (2, 3, 1, 1)
    assert seen[0].fits((1, 2, 3))
    assert seen[1].maps.shape[1] == 0


def test_maps_that_say_what_they_are_of_stay_several_of_a_class():
    seen = Prompted(Table(of=True), GROUPS, matches=False).look([0], {0: (1, 2)})[0]
    assert seen.of == seen.parts[0].of == (0, 1, 2, 2)
    assert seen.maps.shape[1] == 4
    assert seen.fits((1, 2))


def test_of_the_queries_of_naclip_the_best_one_of_a_class_is_its_probability():
    from pnp_core import Segmenter
    from pnp_core.inputs.scenes.drawing import make_scene, render

    scene = render(make_scene("test", 1))[0]
    segmenter = Segmenter("tiny-vit", method="naclip", device="cpu")
    plain = segmenter(scene, ["pear", "mug", "key"])
    several = segmenter(scene, [{"name": "fruit", "prompts": ["pear", "mug"]}, "key"])
    assert np.array_equal(several.labels, np.array([0, 1, 1, 2])[plain.labels])
