"""The authors' irregular lines, against hand-written readings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pnp_core.candidates.answers import parse_answer
from pnp_core.candidates.config import CandidatesConfig
from pnp_core.candidates.file import read_answers, resolve
from pnp_core.checks.candidates_file import report_file
from pnp_core.inputs.cards import load_card

REGULAR = [
    ("[1: 'aeroplane'], [100%]", [(1, "aeroplane", 1.0)]),
    ("[19: train, 15: person], [95, 70]", [(19, "train", 0.95), (15, "person", 0.7)]),
    ("[77: cell phone, 73: laptop], [100,100]", [(77, "cell phone", 1.0), (73, "laptop", 1.0)]),
    ("[58: hot dog, 44: bottle], [95% , 95%]", [(58, "hot dog", 0.95), (44, "bottle", 0.95)]),
    ("[3: sky], \n[80%]", [(3, "sky", 0.8)]),
    ("[1:'person', 61:'cake'], [80, 7.5]", [(1, "person", 0.8), (61, "cake", 0.075)]),
    ('[10: cat, fat, 12: "dog\'s"], [1, 2]', [(10, "cat, fat", 0.01), (12, "dog's", 0.02)]),
]
IRREGULAR = [
    ("[1: a, 2: b]\n[90, 80]", [(1, "a", 0.9), (2, "b", 0.8)], "no comma between the lists"),
    ("[[1: 'wall', 2: 'door'], [90%, 80%]]", [(1, "wall", 0.9), (2, "door", 0.8)], "brackets around both lists"),
    ("[13: horse], [horse: 95%]", [(13, "horse", 0.95)], "words among the probabilities"),
    (
        "[21: 'cow', 113: 'fence'], [95% probability of class1, 70% probability of class2]",
        [(21, "cow", 0.95), (113, "fence", 0.7)],
        "words among the probabilities",
    ),
    ("[59: pizza], [probability of class1 in percentage: 95]", [(59, "pizza", 0.95)], "words among"),
    ("[1: person, 88: bear], [100%: 90%]", [(1, "person", 1.0), (88, "bear", 0.9)], "':' between probabilities"),
    ("[87: scissors], [95: 100]", [(87, "scissors", 0.95)], "2 probabilities for 1 classes: the last are left out"),
    ("[1: a, 2: b, 3: c], [50]", [(1, "a", 0.5), (2, "b", 1.0), (3, "c", 1.0)], "the missing ones count as 100"),
    ("[1: a, 2: b]", [(1, "a", 1.0), (2, "b", 1.0)], "no probabilities: 100 each"),
    ("[1: a, 2: b], []", [(1, "a", 1.0), (2, "b", 1.0)], "no probabilities: 100 each"),
    ("[1: a], [900]", [(1, "a", 1.0)], "over 100 count as 100"),
    ("[], []", [], "no classes"),
    ("", [], "no classes"),
    ("I cannot see the picture.", [], "no classes"),
]


def read(text: str) -> list[tuple]:
    answer = parse_answer(text)
    return [(number, name, score) for (number, name), score in zip(answer.classes, answer.scores, strict=True)]


@pytest.mark.parametrize(("text", "expected"), REGULAR)
def test_regular_lines_need_no_repair(text, expected):
    assert read(text) == expected
    assert parse_answer(text).repairs == ()


@pytest.mark.parametrize(("text", "expected", "repair"), IRREGULAR)
def test_irregular_lines_are_read_and_reported(text, expected, repair):
    assert read(text) == expected
    assert any(repair in r for r in parse_answer(text).repairs)


@given(st.text(alphabet="[]:,'% \n0123456789abc", max_size=60))
def test_any_text_gives_one_score_per_class_within_bounds(text):
    answer = parse_answer(text)
    assert len(answer.classes) == len(answer.scores)
    assert all(0 <= s <= 1 for s in answer.scores if s is not None)


FILES = {
    # file: card, entries, mean number of classes over 70% (the first of the vocabulary where none), fallbacks
    "voc_classification_noboundary.json": ("voc21", 983),
    "psc_classification_noboundary.json": ("context59", 3463),
    "coco_object_classification_noboundary.json": ("coco-object", 3340),
    "coco_stuff_classification_noboundary.json": ("coco-stuff", 3340),
    "ade20k_classification_noboundary.json": ("ade20k", 1296),
}


@pytest.mark.parametrize("name", FILES)
def test_every_line_of_the_authors_files_parses(shared_data, name):
    card_name, entries = FILES[name]
    path, card = str(shared_data / "gpt4o_classification" / name), load_card(card_name)
    lines = list(read_answers(path))
    assert len(lines) == entries
    # Almost every line names at least one class of the card; 3 of COCO's say "[0: None]".
    empty = [key for key, answer in lines if not resolve(answer, card).proposal.classes]
    assert len(empty) <= 3
    report = report_file(path, card, CandidatesConfig(source="file", file=path, fallback="first"))
    assert report.entries == entries
    assert report.kept is not None
    assert 1 <= report.kept <= 7
    assert len(report.repairs) < 0.05 * entries


def test_lists_of_unanswered_pictures_parse_as_entries_without_classes(shared_data):
    for name, entries in (("no_return.json", 208), ("no_output_idx.json", 1720)):
        lines = list(read_answers(str(shared_data / "gpt4o_classification" / name)))
        assert len(lines) == entries
        assert all(answer.classes == () for _, answer in lines)


def test_kept_classes_counted_by_hand(tmp_path):
    (tmp_path / "c.json").write_text(
        '{"a": "[1: aeroplane, 2: bicycle], [71, 70]", "b": "[3: bird], [10]", "c": "[4: boat, 5: bottle]", "d": "-"}'
    )
    config = CandidatesConfig(source="file", file="c.json", fallback="first")
    report = report_file(str(tmp_path / "c.json"), load_card("voc21"), config)
    # a keeps 1 (over 70, not at it), b and d fall back to one, c keeps both: 5 classes in 4 entries.
    assert (report.entries, report.kept, report.fallbacks) == (4, 1.25, 2)
    assert dict(report.repairs) == {"c": ("no probabilities: 100 each",), "d": ("no classes",)}
