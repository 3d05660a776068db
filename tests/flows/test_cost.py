"""`--dry-run` says what a run will take, and writes nothing."""

from pathlib import Path

import pytest
from PIL import Image

from tests.flows.commands import call, summary_of

TINY = ("--preset", "tiny", "--json")


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(6):
        Image.new("RGB", (48 + i, 40), (200, 30 * i, 30)).save(folder / f"{i}.png")
    return folder


def estimated(cost: dict) -> bool:
    return cost["total_seconds"] > 0 and cost["memory_bytes"] > 10**7 and cost["disk_bytes"] > 0


def test_label_says_what_it_will_take_and_then_that_nothing_is_left(images, tmp_path):
    out = tmp_path / "out"
    command = ("label", images, "--classes", "car,key", "--out", out, "--candidates", "vocabulary", *TINY)
    cost = summary_of(call(*command, "--dry-run"))
    assert not out.exists()
    assert (cost["pictures"], cost["done"], cost["classes"], cost["tried"]) == (6, 0, 2, 4)
    assert (cost["method"], cost["candidates"], cost["batch_size"]) == ("pnp-ovss", "vocabulary", 16)
    assert cost["weights_at_hand"]
    assert set(cost["seconds"]) == {"start", "salience", "masks"}
    assert estimated(cost)

    summary_of(call(*command))
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    again = summary_of(call(*command, "--dry-run"))
    assert (again["done"], again["total_seconds"], again["disk_bytes"]) == (6, None, 0)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


def test_the_pictures_of_tars_are_counted_by_reading_them(images, tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for file in sorted(images.iterdir()):
            tar.add(file, file.name)
    out = tmp_path / "out"
    cost = summary_of(call("label", tmp_path / "a.tar", "--classes", "car", "--out", out, *TINY, "--dry-run"))
    assert (cost["pictures"], cost["tried"]) == (6, 4)
    assert not out.exists()


def test_eval_and_ablate_say_what_they_will_take(tmp_path):
    out = tmp_path / "out"
    options = ("scenes", "--limit", "12", "--out", out, "--json", "--dry-run")
    cost = summary_of(call("eval", *options))
    assert (cost["pictures"], cost["settings"]) == (12, 1)
    assert set(cost["seconds"]) == {"start", "salience", "masks", "scores"}
    assert estimated(cost)
    several = summary_of(call("ablate", *options, "--tables", "thresholds"))
    assert several["settings"] == len(several["missing"]) > 1
    assert estimated(several)
    assert not out.exists()


def test_what_was_quarantined_and_what_the_run_would_warn_of_is_said(images, tmp_path):
    (images / "b.png").write_bytes(b"no picture")
    (images / "notes.txt").write_text("")
    out = tmp_path / "out"
    command = ("label", images, "--classes", "car", "--out", out, "--candidates", "vocabulary", *TINY, "--dry-run")
    done = call(*command)
    cost = summary_of(done)
    assert estimated(cost)
    assert any("notes" in warning or "1 file" in warning for warning in cost["warnings"]), cost["warnings"]
    assert cost["warnings"][0] in " ".join(done.stderr.split())
    for file in images.glob("?.png"):
        file.write_bytes(b"no picture")
    done = call(*command)
    cost = summary_of(done)
    assert (cost["pictures"], cost["tried"], cost["labelled"], cost["total_seconds"]) == (7, 4, 0, None)
    assert "all 4 pictures that were tried were quarantined" in done.stderr


def test_names_that_the_model_cannot_read_are_found(images, tmp_path):
    done = call("label", images, "--classes", "car " * 300, "--out", tmp_path / "out", *TINY, "--dry-run")
    assert done.exit_code == 2, done.output
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_tune_says_what_it_will_take(tmp_path):
    out = tmp_path / "out"
    cost = summary_of(call("tune", "scenes", "--images", "8", "--out", out, "--json", "--dry-run"))
    assert (cost["pictures"], cost["tried"], cost["settings"]) == (8, 4, 102)
    assert set(cost["seconds"]) == {"start", "maps", "pictures", "search", "compare"}
    assert estimated(cost)
    assert not out.exists()


def test_a_corpus_says_what_is_new(images, tmp_path):
    out = tmp_path / "out"
    command = ("label-corpus", images, "--classes", "car", "--out", out, "--settle", "0", *TINY)
    cost = summary_of(call(*command, "--dry-run"))
    assert (cost["pictures"], cost["done"]) == (6, 0)
    assert estimated(cost)
    assert not out.exists()
    summary_of(call(*command))
    Image.new("RGB", (50, 50), (1, 200, 3)).save(images / "new.png")
    assert summary_of(call(*command, "--dry-run"))["pictures"] == 1


def test_weights_that_are_not_at_hand_are_said_to_be_so_and_not_fetched(images, tmp_path):
    options = ("--classes", "car", "--out", tmp_path / "out", "--checkpoint", "nobody/nothing", "--json")
    cost = summary_of(call("label", images, *options, "--dry-run"))
    assert not cost["weights_at_hand"]
    assert "nobody/nothing" in cost["problem"]
    assert (cost["pictures"], cost["total_seconds"], cost["tried"]) == (6, None, 0)


def test_a_mistake_is_one_line(images, tmp_path):
    done = call("label", images, "--classes", "car,Car", "--out", tmp_path / "out", "--dry-run")
    assert done.exit_code == 2
    assert len(done.stderr.strip().splitlines()) == 1
