"""Files of classes given to commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from flows.server.deployment_runs import with_classes
from pnp_core.corpus.manifest import LATEST
from pnp_core.inputs.scenes.drawing import make_scene, render
from pnp_core.runs.record import read_record
from pnp_core.storage.run_folder import RunFolder
from tests.flows.commands import call, summary_of

FILE = "name,id,prompts,background\ndrink,1203,mug;bottle,\numbrella,7,,\nmushroom,,,yes\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    Image.fromarray(render(make_scene("test", 0))[0]).save(tmp_path / "photos/0.png")
    (tmp_path / "classes.csv").write_text(FILE)
    return tmp_path


@pytest.mark.parametrize("command", ["label", "label-corpus"])
def test_a_file_that_is_not_there_is_one_line_and_no_class(command, folder):
    done = call(command, folder / "photos", "--classes", "nothing.txt", "--out", folder / "out")
    assert done.exit_code == 2
    assert "class file 'nothing.txt' does not exist" in " ".join(done.stderr.split())
    assert not (folder / "out").exists()


def test_a_corpus_says_the_ids_of_its_classes(folder):
    out = folder / "out"
    options = ["--classes", folder / "classes.csv", "--preset", "tiny", "--settle", "0", "--json"]
    summary_of(call("label-corpus", folder / "photos", "--out", out, *options))
    latest = json.loads((out / LATEST).read_text())
    assert (latest["classes"], latest["ids"]) == (["background", "drink", "umbrella"], [0, 1203, 7])
    record = read_record(RunFolder(str(out / "batches/000001")))
    assert record
    assert (record.classes, record.ids) == (("drink", "umbrella", "mushroom"), (1203, 7, 0))
    summary_of(call("export", out, "--to", "png", "--out", folder / "png", "--json"))
    assert (folder / "png/classes.csv").read_text().splitlines()[2].startswith("1203,drink,")


def test_classes_for_a_deployment_are_read_where_they_are_typed(folder):
    drink = {"name": "drink", "id": 1203, "prompts": ["mug", "bottle"]}
    expected = [drink, {"name": "umbrella", "id": 7}, {"name": "mushroom", "background": True}]
    assert with_classes({"classes": str(folder / "classes.csv"), "png": True}) == {"classes": expected, "png": True}
    assert with_classes({"classes": ["cat", "dog"]}) == {"classes": ["cat", "dog"]}
    assert with_classes({"out": "a"}) == {"out": "a"}
