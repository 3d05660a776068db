"""More than 254 classes: masks of 16 bits through every stage, by hand-made pictures with labels 255, 256 and 1203."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from pnp_core.config import EvalConfig
from pnp_core.data import RunSummary, StageSummary
from pnp_core.errors import UsageError
from pnp_core.export import export_run
from pnp_core.inputs.cards import LabelMapFiles, load_card
from pnp_core.inputs.images import decode_label_map, voc_palette
from pnp_core.inputs.readers.label_maps import value_table
from pnp_core.inputs.scenes.shapes import CLASS_NAMES
from pnp_core.report.contact_sheet import contact_sheet
from pnp_core.report.page import report_page
from pnp_core.runs.plan import Plan, plan_eval
from pnp_core.runs.recording import write_run_record
from pnp_core.runs.sharding import shard_dataset
from pnp_core.stages.maps import extract_shard
from pnp_core.stages.masks import mask_shard
from pnp_core.stages.scores import merge_scores, score_shard

SHAPE = (24, 32)
NAMES = [f"class {i}" for i in range(1, 1204)]
for label, known in ((255, 0), (256, 1), (1203, 2)):
    NAMES[label - 1] = CLASS_NAMES[known]


def halves(left: int, right: int) -> np.ndarray:
    truth = np.full(SHAPE, left, np.uint16)
    truth[:, SHAPE[1] // 2 :] = right
    return truth


TRUTH = {"a": halves(256, 0), "b": halves(1203, 1203), "c": halves(255, 65_535)}
LABEL = {"a": 256, "b": 1203, "c": 255}
"""What a picture's mask is all over: its one candidate class, without a background to choose."""


@dataclass
class Run:
    config: EvalConfig
    plan: Plan
    summary: RunSummary
    shards: list

    @property
    def masks(self) -> dict[str, np.ndarray]:
        table = self.plan.masks.folder.read_table("000000", "parquet").to_pylist()
        return {row["key"]: decode_label_map(row["mask"]["bytes"]) for row in table}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    root = tmp_path_factory.mktemp("wide")
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    (root / "classes.txt").write_text("\n".join(NAMES))
    noise = np.random.default_rng(0)
    for key, truth in TRUTH.items():
        Image.fromarray(truth).save(root / f"masks/{key}.png")
        Image.fromarray(noise.integers(0, 255, (*SHAPE, 3), dtype=np.uint8)).save(root / f"images/{key}.png")
    masks = {"background": "never", "confidence": True, "crf": {"name": "off"}}
    values = {"dataset": "folder", "data": str(root), "preset": "tiny", "out": str(root / "run"), "shards": 1}
    config = EvalConfig.model_validate({**values, "masks": masks})
    plan, (shard,) = plan_eval(config), shard_dataset(config)
    assert plan.score
    salience = extract_shard(plan.salience, shard)
    masked = mask_shard(plan.masks, shard, salience)
    scored = score_shard(plan.score, shard, masked)
    summary = RunSummary(config.out, images=3, labelled=3, masks=plan.masks.place)
    for result in (salience, masked, scored):
        summary.stages.setdefault(result.stage, StageSummary()).add(result)
    summary.scores = merge_scores(plan.score, [shard])
    write_run_record(config, plan, summary)
    return Run(config, plan, summary, [shard])


def test_masks_have_16_bits_and_say_so(run):
    assert {key: set(np.unique(mask)) for key, mask in run.masks.items()} == {k: {n} for k, n in LABEL.items()}
    assert all(mask.dtype == np.uint16 for mask in run.masks.values())
    table = run.plan.masks.folder.read_table("000000", "parquet")
    assert json.loads(table.schema.metadata[b"mask"]) == {"bits": 16, "background": 0, "void": 65535}
    assert b"huggingface" in table.schema.metadata
    (one,) = (row for row in table.to_pylist() if row["key"] == "b")
    assert [(c["id"], c["name"], c["pixels"]) for c in one["classes"]] == [(1203, CLASS_NAMES[2], 24 * 32)]
    with Image.open(io.BytesIO(one["mask"]["bytes"])) as image:
        assert image.mode == "I;16"


def test_scores_are_those_computed_by_hand(run):
    # a: half of 256 is right, the other half of the mask is background; c: the void half does not count.
    iou = {"background": 0.0, CLASS_NAMES[1]: 0.5, CLASS_NAMES[2]: 1.0, CLASS_NAMES[0]: 1.0}
    found = {name: value for name, value in run.summary.scores["per_class_iou"].items() if value is not None}
    assert found == iou
    assert run.summary.scores["miou"] == pytest.approx((0 + 0.5 + 1 + 1) / 4)
    assert run.summary.scores["pixels_ignored"] == 24 * 16
    assert run.summary.scores["pixel_accuracy"] == pytest.approx(2 / 2.5)


def test_png_export_keeps_labels_and_lists_void(run, tmp_path):
    export_run(run.config.out, "png", str(tmp_path))
    for key, mask in run.masks.items():
        with Image.open(tmp_path / f"masks/{key}.png") as image:
            assert np.array_equal(np.array(image), mask)
    rows = list(csv.reader((tmp_path / "classes.csv").open(encoding="utf-8")))
    assert [rows[i][:2] for i in (256, 257, 1204, 1205)] == [
        ["255", CLASS_NAMES[0]], ["256", CLASS_NAMES[1]], ["1203", CLASS_NAMES[2]], ["65535", "void"],
    ]  # fmt: skip


def test_pixels_below_the_floor_become_65535(run, tmp_path):
    export_run(run.config.out, "png", str(tmp_path), floor=1.0, images=False)
    table = run.plan.masks.folder.read_table("000000", "parquet").to_pylist()
    for row in table:
        with Image.open(io.BytesIO(row["confidence"]["bytes"])) as image:
            unsure = np.array(image) < 255
        with Image.open(tmp_path / f"masks/{row['key']}.png") as image:
            assert np.array_equal(np.array(image), np.where(unsure, 65_535, LABEL[row["key"]]))


def test_coco_export_has_the_labels_as_categories(run, tmp_path):
    export_run(run.config.out, "coco-rle", str(tmp_path), images=False)
    coco = COCO(str(tmp_path / "annotations.json"))
    assert (len(coco.cats), coco.cats[1203]["name"]) == (1203, CLASS_NAMES[2])
    assert sorted(a["category_id"] for a in coco.anns.values()) == [255, 256, 1203]
    assert all(coco.annToMask(a).all() for a in coco.anns.values())


def test_hf_export_holds_masks_of_16_bits(run, tmp_path):
    from datasets import load_dataset

    export_run(run.config.out, "hf", str(tmp_path / "out"))
    loaded = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    found = {row["name"]: (set(np.unique(np.array(row["mask"]))), row["labels"]) for row in loaded}
    assert found == {key: ({label}, [label]) for key, label in LABEL.items()}
    assert "- 65535: void" in (tmp_path / "out/README.md").read_text()


def test_mmsegmentation_would_cut_labels_and_is_refused_before_anything_is_written(run, tmp_path):
    with pytest.raises(UsageError, match="has 1203 classes, and masks of mmsegmentation have 254 at most"):
        export_run(run.config.out, "mmseg", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_report_and_contact_sheet_show_such_labels(run):
    page = report_page(run.config, run.plan, run.shards, run.summary).decode()
    for name in CLASS_NAMES[:3]:
        assert name in page
    with Image.open(io.BytesIO(contact_sheet(run.plan, run.shards))) as sheet:
        assert sheet.width > 400


@pytest.mark.parametrize(
    ("classes", "ignore", "expected"),
    [
        (300, (255,), {255: 255, 300: 300, 301: -1, 65_535: 65_535}),
        (300, (7,), {7: 65_535, 255: 255, 65_535: -1}),
        (20, (255,), {20: 20, 21: -1, 255: 255, 65_535: 255}),
    ],
)
def test_void_of_files_of_16_bits_is_65535_and_255_where_that_is_no_class(classes, ignore, expected):
    card = load_card("folder").with_classes(tuple(f"c{i}" for i in range(classes)))
    table = value_table(card, LabelMapFiles(kind="label-maps", name="m", path="{id}.png", ignore=ignore), bits=16)
    assert {value: int(table[value]) for value in expected} == expected


def test_colours_of_the_first_labels_are_the_same_whatever_the_bits():
    wide = voc_palette(np.dtype(np.uint16))
    assert np.array_equal(wide[:256], voc_palette())
    assert len(np.unique(wide, axis=0)) == 65_536


def test_more_classes_than_can_be_scored_are_refused(tmp_path: Path):
    (tmp_path / "classes.txt").write_text("\n".join(f"c{i}" for i in range(5001)))
    with pytest.raises(UsageError, match="5001 classes, and at most 5000 can be scored"):
        plan_eval(EvalConfig(dataset="folder", data=str(tmp_path), out=str(tmp_path / "run")))
