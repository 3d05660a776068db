"""Finished runs side by side: runs made by hand, whose pixels can be counted on fingers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pnp_core.errors import CorruptRunError, ForeignFilesError, UsageError
from pnp_core.report import compare_page
from pnp_core.report.compare_page import compare_runs
from pnp_core.report.comparing import count, mean_iou, scored_labels
from pnp_core.report.opening import page_of
from pnp_core.report.pairing import pair_runs
from pnp_core.storage.run_folder import RunFolder
from tests.runs import made_run

CLASSES = ("cat", "dog")
EVIL = "<script>document.title='class'</script>"


def data_of(out: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', (out / "index.html").read_text("utf-8"), re.S)
    assert found
    return json.loads(found[1])


@pytest.fixture
def two(tmp_path) -> tuple[str, str]:
    """Two runs with ground truth: of 16 pixels of `a` 4 differ, of 8 of `b` none, of 4 of `c` 1."""
    truths = {
        "a": [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 2, 2], [0, 0, 2, 255]],
        "b": [[0, 0, 0, 0], [0, 0, 0, 0]],
        "c": [[2, 2], [2, 2]],
    }
    first = {
        "a": [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        "b": [[0, 0, 0, 0], [0, 0, 0, 0]],
        "c": [[2, 2], [2, 1]],
    }
    second = {
        "a": [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 2, 2], [0, 0, 2, 2]],
        "b": [[0, 0, 0, 0], [0, 0, 0, 0]],
        "c": [[2, 2], [2, 2]],
    }
    one = made_run(tmp_path / "one", first, CLASSES, truths, config={"preset": "tiny"})
    two = made_run(tmp_path / "two", second, CLASSES, truths, per_shard=3)
    return str(one), str(two)


def test_pixels_that_differ_are_counted_in_all_and_in_each_picture(two, tmp_path):
    done = compare_runs(list(two), str(tmp_path / "out"))
    assert (done.images, done.equal, done.share, done.unlike, done.shown) == (3, 1, 5 / 28, 0, 3)
    images = data_of(tmp_path / "out")["pictures"]
    assert [(p["key"], p["differ"]) for p in images] == [("a", 0.25), ("c", 0.25), ("b", 0.0)]
    record = json.loads((tmp_path / "out/compare.json").read_text())
    assert record["pairs"] == [{"runs": [0, 1], "share": 5 / 28}]


def test_classes_are_measured_by_pixels_of_all_pictures_together(two, tmp_path):
    done = compare_runs(list(two), str(tmp_path / "out"))
    rows = {row["name"]: row for row in json.loads((tmp_path / "out/compare.json").read_text())["classes"]}
    # One: cat is right in 4 pixels and taken for a dog's 1; dog is right in 3 of the 7 that count.
    assert [run["iou"] for run in rows["cat"]["runs"]] == [4 / 5, 1.0]
    assert [run["iou"] for run in rows["dog"]["runs"]] == [3 / 7, 1.0]
    assert [run["iou"] for run in rows["background"]["runs"]] == [16 / 19, 1.0]
    assert done.miou == (pytest.approx((4 / 5 + 3 / 7 + 16 / 19) / 3), 1.0)
    assert rows["dog"]["agreement"] == 3 / 8, "all say dog in 3 pixels, anybody in 8"
    assert [run["images"] for run in rows["dog"]["runs"]] == [1, 2]


def test_difference_says_who_is_right_and_what_is_not_scored(two):
    pairing = pair_runs(two)
    shared = {i.key: i for part in pairing.runs[0].parts for i in pairing.shared(part, pairing.keys(part))}
    assert [words for words, _ in compare_page._kinds(pairing)] == [
        "only A is right", "only B is right", "none is right", "differ, not scored",
    ]  # fmt: skip
    codes = compare_page._codes(pairing, shared["a"])
    assert codes.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 2, 2], [0, 0, 2, 4]]


def test_pictures_of_one_run_alone_and_others_of_the_same_name_are_left_out_and_named(tmp_path):
    cat, dog = [[1, 1]], [[2, 2]]
    one = made_run(tmp_path / "one", {"x": cat, "y": cat, "z": cat}, CLASSES)
    two = made_run(tmp_path / "two", {"x": dog, "y": dog, "w": dog, "v": dog}, CLASSES, greys={"y": 200})
    done = compare_runs([str(one), str(two)], str(tmp_path / "out"))
    assert (done.images, done.share, done.apart, done.unlike) == (1, 1.0, (1, 2), 1)
    text = (tmp_path / "out/index.html").read_text("utf-8")
    assert "1 pictures of A that not all others have a mask of: z" in text
    assert "2 pictures of B that not all others have a mask of: w, v" in text
    assert "1 pictures that have one name and are not the same: y" in text
    assert "No run has ground truth" in text


def test_classes_are_matched_by_name_and_one_that_a_run_does_not_know_is_said(tmp_path):
    truths = {"x": [[1, 2, 0]]}
    one = made_run(tmp_path / "one", {"x": [[1, 2, 0]]}, ("cat", "dog"), truths)
    two = made_run(tmp_path / "two", {"x": [[2, 1, 0]]}, ("cow", "cat"))
    done = compare_runs([str(one), str(two)], str(tmp_path / "out"))
    assert done.share == pytest.approx(1 / 3), "cat is 1 in one and 2 in the other"
    rows = {row["name"]: row for row in json.loads((tmp_path / "out/compare.json").read_text())["classes"]}
    assert [run["known"] for run in rows["dog"]["runs"]] == [True, False]
    assert [run["known"] for run in rows["cow"]["runs"]] == [False, True]
    assert done.miou == (1.0, 1.0), "background and cat alone are in both lists"
    assert "not in its list" in (tmp_path / "out/index.html").read_text("utf-8")


def test_of_three_runs_a_pixel_differs_where_not_all_agree(tmp_path):
    masks = [[[1, 1, 1, 0]], [[1, 1, 2, 0]], [[1, 2, 1, 0]]]
    runs = [made_run(tmp_path / name, {"x": mask}, CLASSES) for name, mask in zip("abc", masks, strict=True)]
    done = compare_runs([str(run) for run in runs], str(tmp_path / "out"))
    assert done.share == 0.5
    record = json.loads((tmp_path / "out/compare.json").read_text())
    assert [pair["share"] for pair in record["pairs"]] == [0.25, 0.25, 0.5]


def test_settings_that_differ_are_listed_and_places_are_not(two, tmp_path):
    compare_runs(list(two), str(tmp_path / "out"))
    text = (tmp_path / "out/index.html").read_text("utf-8")
    assert '<th scope="row">preset</th><td>tiny</td><td>' in text
    assert '<th scope="row">out</th>' not in text


def test_of_more_pictures_than_there_is_room_for_those_that_differ_most_stay(tmp_path, monkeypatch):
    same, other = np.zeros((1, 10), int), np.arange(10)
    one = made_run(tmp_path / "one", {f"p{n}": same.tolist() for n in range(10)}, CLASSES)
    two = made_run(tmp_path / "two", {f"p{n}": [(other < n).astype(int).tolist()] for n in range(10)}, CLASSES)
    monkeypatch.setattr(compare_page, "IMAGES", 4)
    done = compare_runs([str(one), str(two)], str(tmp_path / "out"))
    assert (done.images, done.shown) == (10, 4)
    assert [p["key"] for p in data_of(tmp_path / "out")["pictures"]] == ["p9", "p8", "p7", "p6"]
    size = len(json.dumps(data_of(tmp_path / "out")["pictures"][0]))
    room = compare_page._RESERVE + 2 * size + 300
    done = compare_runs([str(one), str(two)], str(tmp_path / "out"), room)
    assert [p["key"] for p in data_of(tmp_path / "out")["pictures"]] == ["p9", "p8"]
    assert "The 2 pictures that differ most, of 10" in (tmp_path / "out/index.html").read_text("utf-8")


def test_a_run_beside_itself_has_its_own_score_and_nothing_differs(evaluated, tmp_path):
    import shutil

    copy = shutil.copytree(evaluated, tmp_path / "copy")
    pairing = pair_runs([str(evaluated), str(copy)])
    totals = count(pairing, 10)
    assert (totals.images, totals.equal, totals.share) == (8, 8, 0.0)
    found = mean_iou(totals.runs[0].iou(totals.truth), totals.truth, scored_labels(pairing))
    assert found == pytest.approx(json.loads((evaluated / "scores.json").read_text())["miou"])


def test_what_cannot_be_compared_is_one_clear_line_and_nothing_is_written(two, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="nothing to compare with: name two run folders"):
        compare_runs([two[0]], str(out))
    with pytest.raises(UsageError, match="is named twice"):
        compare_runs([two[0], f"{two[0]}/../one"], str(out))
    with pytest.raises(CorruptRunError, match="holds no finished run"):
        compare_runs([two[0], str(tmp_path / "nowhere")], str(out))
    stranger = made_run(tmp_path / "stranger", {"q": [[1]]}, CLASSES)
    with pytest.raises(UsageError, match=r"no picture in common: keys are 'a' \.\.\. in .* and 'q' \.\.\. in"):
        compare_runs([two[0], str(stranger)], str(out))
    record = json.loads((stranger / "run.json").read_text())
    record["summary"]["labelled"] = record["summary"]["images"] = 7
    RunFolder(str(stranger)).write_json("run.json", record)
    with pytest.raises(CorruptRunError, match="is not finished, or damaged; run its command again"):
        compare_runs([two[0], str(stranger)], str(out))
    assert not out.exists()


def test_a_folder_of_something_else_is_not_written_to(two, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/index.html").write_text("mine")
    with pytest.raises(ForeignFilesError, match="holds nothing that pnp-ovss has written"):
        compare_runs(list(two), str(tmp_path / "mine"))
    with pytest.raises(ForeignFilesError, match="holds a run of eval, label or tune, not a comparison of runs"):
        compare_runs(list(two), two[0])
    assert (tmp_path / "mine/index.html").read_text() == "mine"


def test_the_same_comparison_again_gives_the_same_bytes_and_can_be_viewed(two, tmp_path):
    compare_runs(list(two), str(tmp_path / "out"))
    before = (tmp_path / "out/index.html").read_bytes()
    compare_runs(list(two), str(tmp_path / "out"))
    assert (tmp_path / "out/index.html").read_bytes() == before
    assert page_of(RunFolder(str(tmp_path / "out"))) == "index.html"


def test_names_that_are_markup_are_text_in_the_page(tmp_path):
    key = "x<img src=x onerror=alert(1)>"
    classes = (EVIL, "</script><b>dog")
    one = made_run(tmp_path / "one", {key: [[1, 2]]}, classes)
    two = made_run(tmp_path / "two", {key: [[2, 2]]}, classes)
    compare_runs([str(one), str(two)], str(tmp_path / "out"))
    text = (tmp_path / "out/index.html").read_text("utf-8")
    assert EVIL not in text
    assert "<b>dog" not in text
    assert "<img src=x" not in text
    assert data_of(tmp_path / "out")["labels"][1]["name"] == EVIL
