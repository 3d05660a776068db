"""Classes with prompts, ids, colours and queries for background: from a file to masks, exports and the report."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from pnp_core import Segmenter
from pnp_core.config import LabelConfig
from pnp_core.data import RunSummary, ShardRef, StageSummary
from pnp_core.errors import ClassNameError, UsageError
from pnp_core.export import export_run
from pnp_core.inputs.images import decode_label_map, encode_label_map
from pnp_core.inputs.own_classes import OwnClass
from pnp_core.inputs.scenes.drawing import make_scene, render
from pnp_core.report.contact_sheet import contact_sheet
from pnp_core.report.page import report_page
from pnp_core.report.palette import display_palette
from pnp_core.runs.plan import Plan, plan_label
from pnp_core.runs.preflight import check_label, own_remarks
from pnp_core.runs.recording import write_run_record
from pnp_core.runs.sharding import shard_source
from pnp_core.stages.maps import extract_shard
from pnp_core.stages.masks import export_png, mask_shard
from pnp_core.tuning.config import TuneConfig
from pnp_core.tuning.plan import plan_tune

SCENES = {number: render(make_scene("test", number))[0] for number in (0, 1)}
"""In the first are a mushroom, an umbrella and a bottle, in the second a key, a tree, a pear and a balloon."""
FILE = """
drink: {id: 1203, prompts: [mug, bottle], colour: '#c81e0a'}
umbrella: {id: 7}
background: [mushroom]
"""
PLAIN = ["bottle", "umbrella", "mushroom"]
VALUES = np.array([0, 1203, 7, 0])
"""What the labels of `PLAIN` are by that file."""


@pytest.fixture(scope="module")
def tiny() -> Segmenter:
    return Segmenter("tiny", device="cpu")


@dataclass
class Run:
    config: LabelConfig
    plan: Plan
    shards: list[ShardRef]
    summary: RunSummary

    @property
    def rows(self) -> list[dict]:
        rows = self.plan.masks.folder.read_table("000000", "parquet").to_pylist()
        return sorted(rows, key=lambda row: row["key"])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    root = tmp_path_factory.mktemp("own")
    (root / "pictures").mkdir()
    (root / "classes.yaml").write_text(FILE)
    for number, scene in SCENES.items():
        Image.fromarray(scene).save(root / f"pictures/{number}.png")
    values = {"source": str(root / "pictures"), "classes": str(root / "classes.yaml"), "preset": "tiny", "png": True}
    config = LabelConfig.model_validate({**values, "out": str(root / "run"), "masks": {"confidence": True}})
    plan, shards = plan_label(config), shard_source(config)
    (shard,) = shards
    maps = extract_shard(plan.salience, shard)
    masks = mask_shard(plan.masks, shard, maps)
    export_png(plan.masks, shard, masks)
    summary = RunSummary(config.out, images=2, labelled=2, masks=plan.masks.place)
    for result in (maps, masks):
        summary.stages.setdefault(result.stage, StageSummary()).add(result)
    write_run_record(config, plan, summary)
    return Run(config, plan, shards, summary)


@pytest.fixture(scope="module")
def expected(tiny) -> np.ndarray:
    """The mask of the first scene, by hand from that of the plain names."""
    mask = VALUES[tiny(SCENES[0], PLAIN).labels]
    assert set(np.unique(mask)) == {0, 7, 1203}
    return mask


@pytest.mark.parametrize("prompts", [("mug", "pear"), ("pear", "mug", "house")])
def test_the_prompt_that_fits_the_picture_counts_as_if_it_were_alone(prompts, tiny):
    alone = tiny(SCENES[1], ["pear", "key"])
    several = tiny(SCENES[1], [{"name": "fruit", "prompts": prompts}, "key"])
    assert np.array_equal(several.labels, alone.labels)
    assert np.array_equal(several.scores, alone.scores)
    assert several.classes == ("background", "fruit", "key")
    assert several.asked["fruit"] == pytest.approx(alone.asked["pear"], abs=1e-5)


def test_where_every_class_is_asked_about_the_fitting_prompt_is_matched_too():
    every = Segmenter("tiny", device="cpu", candidates="vocabulary")
    first, second = every([SCENES[1], SCENES[0]], [{"name": "thing", "prompts": ["pear", "umbrella"]}])
    assert np.array_equal(first.labels, every(SCENES[1], ["pear"]).labels)
    assert np.array_equal(second.labels, every(SCENES[0], ["umbrella"]).labels)


def test_a_query_for_background_claims_pixels_that_become_0(tiny):
    plain = tiny(SCENES[0], PLAIN)
    queried = tiny(SCENES[0], ["bottle", "umbrella", OwnClass(name="mushroom", background=True)])
    assert np.array_equal(queried.labels, np.array([0, 1, 2, 0])[plain.labels])
    assert (plain.labels == 3).any()
    assert queried.classes == ("background", "bottle", "umbrella")
    assert np.array_equal(queried.scores[0], np.maximum(plain.scores[0], plain.scores[3]))


def test_masks_and_rows_have_the_ids(run, expected):
    row = run.rows[0]
    mask = decode_label_map(row["mask"]["bytes"])
    assert mask.dtype == np.uint16
    assert np.array_equal(mask, expected)
    assert {(c["id"], c["name"], c["pixels"]) for c in row["classes"]} == {
        (1203, "drink", int((expected == 1203).sum())),
        (7, "umbrella", int((expected == 7).sum())),
    }
    png = Path(run.config.out) / f"png/{run.plan.masks.fingerprint}/{row['key']}.png"
    assert png.read_bytes() == row["mask"]["bytes"]


def test_a_segmenter_gives_the_masks_of_a_run(run, tiny, tmp_path):
    (tmp_path / "classes.yaml").write_text(FILE)
    made = tiny(list(SCENES.values()), tmp_path / "classes.yaml")
    for result, row in zip(made, run.rows, strict=True):
        assert encode_label_map(result.labels, result.palette) == row["mask"]["bytes"]
        assert (result.classes, result.ids) == (("background", "drink", "umbrella"), (0, 1203, 7))
        assert result.scores.shape == (3, *result.labels.shape)
        assert np.array_equal(np.array(result.ids)[result.scores.argmax(axis=0)], result.labels)
    assert made[0].palette[1203].tolist() == [200, 30, 10]
    assert "drink" in repr(made[0])
    assert made[0].names == {0: "background", 1203: "drink", 7: "umbrella"}
    with Image.open(io.BytesIO(made[0]._repr_png_())) as shown:
        own = tuple(display_palette(made[0].labels.dtype)[1203].tolist())
        assert own in {colour for _, colour in shown.convert("RGB").getcolors(1 << 20) or ()}


def test_ids_up_to_254_stay_in_8_bits_with_their_colours(tiny, tmp_path):
    classes = [{"name": "bottle", "id": 254, "colour": "#c81e0a"}, {"name": "umbrella", "id": 7}]
    made = tiny(SCENES[0], classes)
    made.save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P"
        assert set(np.unique(np.array(image))) == {0, 7, 254}
        palette = np.array(image.getpalette()).reshape(-1, 3)
    assert (palette[254].tolist(), palette[7].tolist()) == ([200, 30, 10], [128, 128, 128])


def test_an_id_over_254_is_warned_of():
    said = {n: own_remarks(plan_of([{"name": "cup", "id": n}, {"name": "car", "id": 1}])) for n in (254, 255, 1203)}
    assert said[254] == own_remarks(plan_of(["cup", "car"]))
    for n in (255, 1203):
        wide = f"the id {n} of 'cup' is over 254: all masks have 16 bits, as grey PNGs without colours"
        assert said[n] == [*said[254], wide]


def test_png_export_lists_ids(run, expected, tmp_path):
    export_run(run.config.out, "png", str(tmp_path))
    with Image.open(tmp_path / "masks/0.png") as image:
        assert np.array_equal(np.array(image), expected)
    rows = list(csv.reader((tmp_path / "classes.csv").open()))
    grey = ["128", "128", "128"]
    assert rows[1:4] == [
        ["0", "background", "0", "0", "0"],
        ["1203", "drink", "200", "30", "10"],
        ["7", "umbrella", *grey],
    ]
    assert rows[4][:2] == ["65535", "void"]
    (first, *_) = csv.DictReader((tmp_path / "index.csv").open())
    assert first["labels"] == "7 1203"


def test_coco_and_yolo_know_the_classes(run, expected, tmp_path):
    export_run(run.config.out, "coco-rle", str(tmp_path / "coco"), images=False)
    coco = COCO(str(tmp_path / "coco/annotations.json"))
    assert {n: category["name"] for n, category in coco.cats.items()} == {1203: "drink", 7: "umbrella"}
    first = [a for a in coco.anns.values() if a["image_id"] == 1]
    assert {a["category_id"]: a["area"] for a in first} == {n: (expected == n).sum() for n in (7, 1203)}
    export_run(run.config.out, "yolo", str(tmp_path / "yolo"))
    data = (tmp_path / "yolo/data.yaml").read_text()
    assert yaml.safe_load(data)["names"] == {0: "drink", 1: "umbrella"}
    assert "in masks of the run they are 1203, 7" in data
    lines = (tmp_path / "yolo/labels/train/0.txt").read_text().splitlines()
    assert {line.split()[0] for line in lines} == {"0", "1"}


def test_hf_and_webdataset_name_the_ids(run, expected, tmp_path):
    export_run(run.config.out, "hf", str(tmp_path / "hf"))
    table = pq.read_table(tmp_path / "hf/data/train-00000.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    names = features["labels"]["feature"]["names"]
    assert names == ["background", "drink", "umbrella"]
    row = table.to_pylist()[0]
    assert {names[n] for n in row["labels"]} == {"drink", "umbrella"}
    assert np.array_equal(decode_label_map(row["mask"]["bytes"]), expected)
    assert '- 1203: "drink"\n- 7: "umbrella"\n- 65535: void' in (tmp_path / "hf/README.md").read_text()
    export_run(run.config.out, "webdataset", str(tmp_path / "tars"))
    classes = json.loads((tmp_path / "tars/classes.json").read_text())
    assert classes == {"names": ["background", "drink", "umbrella"], "void": 65535, "labels": [0, 1203, 7]}
    with tarfile.open(tmp_path / "tars/train-000000.tar") as tar:
        opened = tar.extractfile("0.json")
        assert opened
        assert set(json.loads(opened.read())["pixels"]) == {"7", "1203"}


def test_mmsegmentation_gets_places_and_voc_is_refused(run, expected, tmp_path):
    export_run(run.config.out, "mmseg", str(tmp_path / "mmseg"))
    with Image.open(tmp_path / "mmseg/ann_dir/train/0.png") as image:
        places = np.array(image)
        palette = np.array(image.getpalette()).reshape(-1, 3)
    assert places.dtype == np.uint8
    assert np.array_equal(np.array([0, 1203, 7])[places], expected)
    assert palette[1].tolist() == [200, 30, 10]
    assert "classes=['background', 'drink', 'umbrella']" in (tmp_path / "mmseg/dataset.py").read_text()
    with pytest.raises(UsageError, match="has ids up to 1203, and masks of Pascal VOC have 254 at most"):
        export_run(run.config.out, "voc", str(tmp_path / "voc"))


def test_tools_for_labelling_and_soft_maps_know_the_classes(run, expected, tmp_path):
    export_run(run.config.out, "labelstudio", str(tmp_path / "studio"), images=False)
    (task, _) = json.loads((tmp_path / "studio/tasks/00000.json").read_text())
    found = {tuple(result["value"]["brushlabels"]) for result in task["predictions"][0]["result"]}
    assert found == {("drink",), ("umbrella",)}
    assert '<Label value="drink" background="#c81e0a"/>' in (tmp_path / "studio/label_config.xml").read_text()
    export_run(run.config.out, "cvat", str(tmp_path / "cvat"), images=False)
    assert [label["name"] for label in json.loads((tmp_path / "cvat/labels.json").read_text())] == ["drink", "umbrella"]
    export_run(run.config.out, "scores", str(tmp_path / "scores"), images=False)
    soft = np.load(tmp_path / "scores/scores/0.npz")
    assert soft["labels"].tolist() == [0, 7, 1203]
    certain = np.sort(soft["scores"].astype(int), axis=0)
    clear = certain[-1] > certain[-2]  # in 8 bits some are equal
    assert np.array_equal(soft["labels"][soft["scores"].argmax(axis=0)][clear], expected[clear])
    rows = list(csv.reader((tmp_path / "scores/classes.csv").open()))
    assert rows == [["label", "name"], ["0", "background"], ["1203", "drink"], ["7", "umbrella"]]


def test_the_report_shows_ids_and_what_queries_saw(run):
    page = report_page(run.config, run.plan, run.shards, run.summary).decode()
    assert "1203" in page
    assert "mushroom" in page
    with Image.open(io.BytesIO(contact_sheet(run.plan, run.shards))) as sheet:
        own = tuple(display_palette()[1].tolist())  # of the first class, whatever its id
        assert own in {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20) or ()}


def plan_of(classes, **more) -> Plan:
    return plan_label(
        LabelConfig.model_validate({"source": "a", "out": "b", "classes": classes, "preset": "tiny"} | more)
    )


def test_runs_of_names_alone_have_the_names_that_they_had():
    assert (plan_of(["mug", "fish", "house", "star"])).salience.fingerprint == "855ad102a03585a4"
    assert (plan_of(["mug", "fish", "house", "star"])).masks.fingerprint == "cf5ddd284df19605"


def test_prompts_name_new_maps_and_ids_and_colours_new_masks_alone():
    plain = plan_of(["mug", "fish"])
    same = plan_of([{"name": "mug"}, {"name": "fish", "prompts": ["fish"]}])
    assert same.masks.fingerprint == plain.masks.fingerprint
    for values in ({"id": 7}, {"colour": "#c81e0a"}):
        other = plan_of([{"name": "mug", **values}, {"name": "fish", **({"id": 8} if "id" in values else {})}])
        assert other.salience.fingerprint == plain.salience.fingerprint
        assert other.masks.fingerprint != plain.masks.fingerprint
    maps = [
        plan_of([{"name": "mug", "prompts": p}, "fish"]).salience.fingerprint
        for p in (["cup"], ["mug", "cup"], ["cup", "mug"])
    ]
    assert len({*maps, plain.salience.fingerprint}) == 4


def test_what_a_model_cannot_read_is_said_with_class_and_prompt(random_blip, tmp_path):
    Image.fromarray(SCENES[0]).save(tmp_path / "a.png")
    values = {"source": str(tmp_path / "a.png"), "out": str(tmp_path / "run"), "preset": "tiny"}
    for prompts, message in (
        (["mug", "\u732b"], "class 'pet', asked by 'mug' or '\u732b': class '\u732b' is unknown to the text encoder"),
        (["\u732b"], "class 'pet', asked by '\u732b': class '\u732b' is unknown to the text encoder"),
        (["mug", "mug " * 70], "class 'pet', asked by 'mug' or 'mug mug .*alone makes a caption of 7. tokens"),
    ):
        config = LabelConfig.model_validate({**values, "classes": ["fish", {"name": "pet", "prompts": prompts}]})
        with pytest.raises(UsageError, match=message):
            check_label(config)


def test_prompts_that_the_photo_model_does_not_know_are_left_out_and_said():
    photo = Segmenter("photo", device="cpu")
    with pytest.warns(UserWarning, match="does not know qwxzv: left out"):
        made = photo(SCENES[0], [{"name": "pet", "prompts": ["qwxzv", "cat"]}, "car"])
    assert made.classes == ("background", "pet", "car")
    with pytest.raises(ClassNameError, match="knows none of the class names"):
        photo(SCENES[0], [{"name": "pet", "prompts": ["qwxzv", "vzxwq"]}])


def test_tune_asks_about_a_class_with_one_prompt():
    classes = ["key", {"name": "fruit", "prompts": ["pear", "mug"]}]
    config = TuneConfig.model_validate({"data": "photos", "out": "tune", "classes": classes})
    with pytest.raises(UsageError, match="tune asks about each class with one prompt, and 'fruit' has several"):
        plan_tune(config)
