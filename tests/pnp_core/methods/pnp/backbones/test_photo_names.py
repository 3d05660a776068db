"""Class names as the photo model reads them."""

from __future__ import annotations

import pytest

from pnp_core.methods.pnp.backbones.photo_names import UNKNOWN, Vocabulary, read_vocabulary

NAMES = {"sea lion": 9, "lion": 8, "bus": 7, "potted plant": 6, "tv": 5, "a": 4, "cherry": 10, "jack o lantern": 11}
VOCABULARY = Vocabulary({tuple(name.split()): token for name, token in NAMES.items()})


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("sea lion", 9), ("Sea-Lion", 9), ("sea_lion", 9), ("sea lions", 9), ("sealion", 9), ("lions", 8), ("bus", 7),
        ("buses", 7), ("pottedplant", 6), ("potted plants", 6), ("TV", 5), ("cherries", 10),
        ("jack-o'-lantern", 11), ("jack o lantern", 11),
    ],
)  # fmt: skip
def test_name_is_one_token_however_it_is_written(name, token):
    pieces = list(VOCABULARY.pieces(name))
    assert VOCABULARY.knows(name)
    assert [(p.token, p.start, p.end) for p in pieces] == [(token, 0, len(name))]


def test_longest_name_wins_and_offsets_are_those_of_the_caption():
    text = "a sea lion bus  lion"
    assert [(p.token, text[p.start : p.end]) for p in VOCABULARY.pieces(text)] == [
        (4, "a"), (9, "sea lion"), (7, "bus"), (8, "lion"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["zebra", "", "???", "sea", "глобус", "lion king"])
def test_unknown_names_are_not_known(name):
    assert not VOCABULARY.knows(name)


def test_part_that_is_unknown_is_told_apart():
    assert [p.token for p in VOCABULARY.pieces("striped lion")] == [UNKNOWN, 8]


@pytest.mark.parametrize(
    ("name", "first"), [("see lion", "sea lion"), ("mountain lion", "lion"), ("potted plnt", "potted plant")]
)
def test_nearest_names_are_written_alike_or_share_the_last_word(name, first):
    assert VOCABULARY.nearest(name)[0] == first


def test_nothing_is_near_to_nonsense():
    assert VOCABULARY.nearest("qqqq") == []


@pytest.mark.parametrize(
    ("word", "name"), [("people", "person"), ("women", "person"), ("kid", "person"), ("puppy", "dog")]
)
def test_everyday_words_mean_what_the_bundled_model_knows_under_another_name(word, name):
    vocabulary = read_vocabulary()
    assert [p.token for p in vocabulary.pieces(word)] == [p.token for p in vocabulary.pieces(name)]
