"""Files of candidate classes in all their forms."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pnp_core.candidates import candidates_revision
from pnp_core.candidates.answers import Answer
from pnp_core.candidates.base import Images, SourceContext, choose
from pnp_core.candidates.config import CandidatesConfig
from pnp_core.candidates.file import FileCandidates, read_answers, resolve
from pnp_core.data import Sample
from pnp_core.errors import CandidatesFileError
from pnp_core.inputs.cards import load_card
from tests.pnp_core.candidates.test_choose import no_match

CARD = load_card("voc21")
LEFT_OUT = "null among the classes left out"
EXPECTED = {"a": {8: 0.9, 12: 0.2}, "b/c d.jpg": {20: 1.0}}


def proposals(path) -> dict[str, dict[int, float]]:
    found = {}
    for key, answer in read_answers(str(path)):
        proposal = resolve(answer, CARD).proposal
        found[key] = dict(zip(proposal.classes, proposal.scores or (1.0,) * len(proposal.classes), strict=True))
    return found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", '{"a": {"cat": 0.9, "dog": 0.2}, "b/c d.jpg": ["tv monitor"]}'),
        ("c.json", '{"a": [{"name": "cat", "score": 0.9}, {"id": 12, "score": 0.2}], "b/c d.jpg": [20]}'),
        (
            "c.json",
            '{"a": {"classes": ["cat", "dog"], "scores": [0.9, 0.2]}, "b/c d.jpg": {"classes": ["television"]}}',
        ),
        (
            "c.json",
            '[{"key": "a", "classes": ["cat", "dog"], "scores": [0.9, 0.2]}, {"key": "b/c d.jpg", "label": 20}]',
        ),
        ("c.jsonl", '{"id": "a", "classes": [8, 12], "scores": [0.9, 0.2]}\n\n{"id": "b/c d.jpg", "classes": [20]}\n'),
        ("c.csv", "key,classes,scores\na,cat;dog,0.9;0.2\nb/c d.jpg,tv monitor,\n"),
        ("c.csv", "file_name,class,score\r\na,cat,0.9\r\na,dog,0.2\r\nb/c d.jpg,20,1\r\n"),
        ("c.tsv", "key\tlabels\tprobabilities\na\tcat|dog\t0.9|0.2\nb/c d.jpg\ttvmonitor\t1\n"),
    ],
)
def test_every_form_says_the_same(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert proposals(tmp_path / name) == EXPECTED


def test_parquet_long_and_wide(tmp_path):
    wide = {"key": ["a", "b/c d.jpg"], "classes": [["cat", "dog"], ["tvmonitor"]], "scores": [[0.9, 0.2], [1.0]]}
    pq.write_table(pa.table(wide), tmp_path / "wide.parquet")
    long = {"image_id": ["a", "a", "b/c d.jpg"], "label": [8, 12, 20], "score": [0.9, 0.2, 1.0]}
    pq.write_table(pa.table(long), tmp_path / "long.parquet")
    assert proposals(tmp_path / "wide.parquet") == proposals(tmp_path / "long.parquet") == EXPECTED


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", "[1, 2]", "row 1 is not a mapping"),
        ("c.json", "3", "must hold a mapping"),
        ("c.json", '{"a": 3}', "a: '3' is neither text, a list nor a mapping"),
        ("c.json", '{"a": {"cat": 90}}', "score 90 does not lie in 0..1"),
        ("c.json", '{"a": {"classes": ["cat"], "scores": [0.5, 0.5]}}', "1 classes but 2 scores"),
        ("c.json", '{"a":', "cannot be read"),
        ("c.json", '{"a": ["cat"], "a": ["dog"]}', "the key 'a' is there twice"),
        ("c.csv", "name,classes\na,cat\n", "row 1 has no key"),
        ("c.csv", "key,what\na,cat\n", "row 1 has no classes"),
        ("c.csv", "key,classes,scores\na,cat,high\n", "score 'high' is no number"),
        ("c.parquet", "no parquet", "cannot be read"),
        ("c.xlsx", "", "must end in one of"),
    ],
)
def test_broken_files_are_refused_in_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(CandidatesFileError, match=message) as error:
        list(read_answers(str(tmp_path / name)))
    assert "\n" not in str(error.value)


def test_null_costs_its_own_picture_only_and_is_told(shared_data):
    found = dict(read_answers(str(shared_data / "wild/candidates-null/one_null.json")))
    assert found["2007_000033"].classes == ((1, "aeroplane"),)
    assert found["2007_000042"] == Answer((), (), ("no answer (null)",))


NONE, CAT = Answer((), ()), Answer(((None, "cat"),), (0.9,))


@pytest.mark.parametrize(
    ("name", "text", "expected", "repairs"),
    [
        ("c.json", '{"a": {"classes": null}, "b": {"cat": 0.9}}', [NONE, CAT], ["no answer (null)"]),
        ("c.json", '{"a": ["cat", null], "b": {"cat": 0.9}}', [Answer(((None, "cat"),), (None,)), CAT], [LEFT_OUT]),
        ("c.jsonl", '{"id": "a", "classes": null}\n{"id": "b", "class": "cat", "score": 0.9}', [NONE, CAT], [LEFT_OUT]),
        (
            "c.json",
            '{"a": {"cat": NaN, "dog": 0.5}, "b": {"cat": 0.9}}',
            [Answer(((None, "cat"), (None, "dog")), (None, 0.5)), CAT],
            ["classes without a score count as 1"],
        ),
    ],
)
def test_null_anywhere_is_no_class_and_the_rest_is_read(tmp_path, name, text, expected, repairs):
    (tmp_path / name).write_text(text)
    answers = [answer for _, answer in read_answers(str(tmp_path / name))]
    assert [(a.classes, a.scores) for a in answers] == [(a.classes, a.scores) for a in expected]
    assert list(answers[0].repairs) == repairs
    assert not answers[1].repairs


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_are_read_by_their_byte_order_mark(tmp_path, encoding):
    (tmp_path / "c.json").write_text('{"a": {"cat": 0.9, "dog": 0.2}, "b/c d.jpg": ["tv monitor"]}', encoding=encoding)
    assert proposals(tmp_path / "c.json") == EXPECTED


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CandidatesFileError, match="cannot read candidates file"):
        candidates_revision(CandidatesConfig(source="file", file=str(tmp_path / "none.json")))


def test_name_decides_where_number_and_name_disagree_and_unknown_ones_are_left_out(tmp_path):
    (tmp_path / "c.json").write_text('{"a": "[14: cat, 3: gnu, 99: unicorn, 12: \'dog\'], [90, 80, 70, 60]"}')
    ((_, answer),) = read_answers(str(tmp_path / "c.json"))
    resolved = resolve(answer, CARD)
    assert resolved.proposal.classes == (8, 12)
    assert resolved.repairs == (
        "number 14 is not cat: read by name",
        "unknown class '3: gnu' left out",
        "unknown class '99: unicorn' left out",
    )


def source_of(file: Path) -> FileCandidates:
    config = CandidatesConfig(source="file", file=str(file))
    return FileCandidates(SourceContext(config, CARD, (), "cpu"))


def sample(key: str, source: str, name: str = "") -> Sample:
    return Sample(key, b"", "jpg", source, name=name)


def test_rows_of_a_key_need_not_be_together(tmp_path):
    (tmp_path / "c.csv").write_text("key,class,score\na,cat,0.9\nb,dog,0.8\na,person,0.8\na,cat,0.1\n")
    source = source_of(tmp_path / "c.csv")
    a, b = source.propose(Images([sample("a", "a"), sample("b", "b")], no_match), [None, None])
    assert dict(zip(a.classes, a.scores or (), strict=True)) == {8: 0.9, 15: 0.8}
    assert b.classes == (12,)


def test_pictures_of_tables_and_tars_are_found_by_their_own_names(tmp_path):
    (tmp_path / "c.json").write_text('{"my pic": ["cat"], "cat 1.jpg": ["dog"], "139": ["cow"]}')
    source = source_of(tmp_path / "c.json")
    asked = [
        sample("my_pic-b53e", "x.parquet!0 (my pic.jpg)", "my pic.jpg"),
        sample("-", "a.tar!cat 1.jpg", "cat 1.jpg"),
        sample("000000000139", "images/val2017/000000000139.jpg"),
    ]
    assert [p.classes for p in source.propose(Images(asked, no_match), [None] * 3)] == [(8,), (12,), (10,)]


def test_picture_is_found_by_key_source_or_stem_and_unknown_ones_have_no_fallback(tmp_path):
    (tmp_path / "c.json").write_text('{"k": ["cat"], "b/x y.jpg": ["dog"], "z": ["cow"], "q/r": ["sheep"]}')
    source = source_of(tmp_path / "c.json")
    asked = [
        sample("k", "-"),
        sample("b__x", "b/x y.jpg"),
        sample("-", "f/z.png"),
        sample("-", "q/r.jpg"),
        sample("n", "n"),
    ]
    found = source.propose(Images(asked, no_match), [None] * 5)
    assert [p.classes for p in found] == [(8,), (12,), (10,), (17,), ()]
    config = CandidatesConfig(source="file", file="c.json", fallback="first")
    choice = choose(found[-1], config, source.default_min_score, range(1, 21))
    assert choice.classes == ()
    assert "no entry in candidates file" in choice.how
    assert "for key 'n'" in choice.how


def test_line_that_is_no_json_is_told_by_its_number_in_the_file(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"id": "a", "classes": ["cat"]}\n\n{"id": oops}\n')
    with pytest.raises(CandidatesFileError, match=r"cannot be read: line 3 is no JSON: Expecting value at column 8"):
        list(read_answers(str(tmp_path / "c.jsonl")))
