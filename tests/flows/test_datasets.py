"""`eval`, `check`, `datasets` and `candidates` on real samples, as a user types them."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from pnp_core.config import EvalConfig
from pnp_core.inputs.cards import load_card
from pnp_core.inputs.images import decode_label_map
from pnp_core.runs.plan import plan_eval
from pnp_core.runs.sharding import shard_dataset
from pnp_core.stages.masks import MASK_SCHEMA
from pnp_core.stages.scores import merge_scores, score_shard
from pnp_core.storage.completion import StageOutput
from pnp_core.storage.run_folder import RunFolder, table_bytes
from pnp_core.storage.shards import read_shard

runner = CliRunner()
ROOTS = {
    "voc21": "VOCdevkit",
    "voc20": "VOCdevkit",
    "context60": "VOCdevkit",
    "context59": "VOCdevkit",
    "coco-object": "coco",
    "ade20k": "ADEChallengeData2016",
}
MASKS = {
    "voc21": "VOC2012/SegmentationClass",
    "voc20": "VOC2012/SegmentationClass",
    "context60": "VOC2010/SegmentationClassContext",
    "context59": "VOC2010/SegmentationClassContext",
    "ade20k": "annotations/validation",
}


@pytest.fixture
def without_crf(tmp_path) -> list[str]:
    """Options of an `eval` that is not about how good masks are: the CRF takes most of the time on photographs."""
    settings = tmp_path / "without-crf.yaml"
    settings.write_text("masks: {crf: {name: 'off'}}")
    return ["--preset", "tiny", "--config", str(settings)]


def run(*arguments: str, code: int = 0) -> dict:
    result = runner.invoke(app, [*arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


def coco_stuff_copy(shared_data: Path, root: Path) -> Path:
    """COCO-Stuff as distributed, for three real pictures: things from the annotations, sky and void around."""
    annotations = json.loads((shared_data / "coco/annotations/instances_val2017.json").read_text())
    (root / "stuffthingmaps/val2017").mkdir(parents=True)
    (root / "images/val2017").mkdir(parents=True)
    for image in annotations["images"][:3]:
        values = np.full((image["height"], image["width"]), 157 - 1, dtype=np.uint8)
        values[: image["height"] // 5] = 255
        for own in (a for a in annotations["annotations"] if a["image_id"] == image["id"]):
            x, y, width, height = (round(v) for v in own["bbox"])
            values[y : y + height, x : x + width] = own["category_id"] - 1
        Image.fromarray(values).save(root / f"stuffthingmaps/val2017/{image['id']:012d}.png")
        shutil.copy(shared_data / "coco/images/val2017" / image["file_name"], root / "images/val2017")
    return root


def data_of(card: str, shared_data: Path, tmp_path: Path) -> str:
    return str(coco_stuff_copy(shared_data, tmp_path / "coco") if card == "coco-stuff" else shared_data / ROOTS[card])


@pytest.mark.parametrize("card", [*ROOTS, "coco-stuff"])
def test_ground_truth_fed_back_as_prediction_scores_one(shared_data, tmp_path, card):
    config = EvalConfig(dataset=card, data=data_of(card, shared_data, tmp_path), out=str(tmp_path / "run"))
    plan, shards = plan_eval(config), shard_dataset(config)
    assert plan.score is not None
    for shard in shards:
        rows = []
        for sample in read_shard(RunFolder(config.out), shard):
            assert sample.fault is None
            rows.append({"key": sample.key, "mask": {"bytes": sample.label_map, "path": None}})
        table = table_bytes(pa.Table.from_pylist(rows, schema=MASK_SCHEMA))
        output = StageOutput({"parquet": table}, len(rows))
        masks = plan.masks.folder.complete(shard.name, "-", lambda output=output: output)
        score_shard(plan.score, shard, masks)
    scores = merge_scores(plan.score, shards)
    assert (scores["miou"], scores["miou_union"], scores["pixel_accuracy"]) == (1.0, 1.0, 1.0)
    assert scores["classes"] == load_card(card).number_of_classes


@pytest.mark.parametrize("card", [*ROOTS, "coco-stuff"])
def test_eval_reports_the_counts_of_the_mask_files(shared_data, tmp_path, card, without_crf):
    data = data_of(card, shared_data, tmp_path)
    result = run("eval", card, "--data", data, *without_crf, "--limit", "6", "--out", str(tmp_path / "run"))
    background = load_card(card).background
    keys = sorted(row["key"] for row in rows_of(result))
    pixels = ignored = 0
    present: set[int] = set()
    for key in keys:
        if card == "coco-object":
            continue
        path = f"stuffthingmaps/val2017/{key}.png" if card == "coco-stuff" else f"{MASKS[card]}/{key}.png"
        with Image.open(Path(data) / path) as image:
            values = np.array(image)
        void = values == 255
        if card != "coco-stuff" and not background:
            void |= values == 0
        ignored += int(void.sum())
        pixels += int((~void).sum())
        present |= set(np.unique(values[~void]).tolist())
    if card == "coco-object":
        images = json.loads((Path(data) / "annotations/instances_val2017.json").read_text())["images"]
        pixels = sum(i["height"] * i["width"] for i in images if f"{i['id']:012d}" in keys)
        present = set(range(result["classes_present"]))
    expected = {"context59": 3, "context60": 3, "coco-stuff": 3}.get(card, 6)
    assert len(keys) == result["images"] == result["labelled"] == result["images_scored"] == expected
    assert result["classes"] == load_card(card).number_of_classes
    assert (result["pixels"], result["pixels_ignored"]) == (pixels, ignored)
    assert result["classes_present"] == len(present)
    assert 0 <= result["miou"] <= 1


def rows_of(result: dict) -> list[dict]:
    return [row for f in sorted(Path(result["masks"]).glob("*.parquet")) for row in pq.read_table(f).to_pylist()]


def test_other_image_labels_make_other_shards_in_the_same_folder(tmp_path):
    voc = tmp_path / "VOCdevkit/VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "Annotations"):
        (voc / folder).mkdir(parents=True)
    Image.new("RGB", (8, 4)).save(voc / "JPEGImages/x.jpg")
    Image.fromarray(np.full((4, 8), 15, dtype=np.uint8)).save(voc / "SegmentationClass/x.png")
    (voc / "ImageSets/Segmentation/val.txt").write_text("x\n")
    (voc / "Annotations/x.xml").write_text("<annotation><object><name>dog</name></object></annotation>")
    config = EvalConfig(dataset="voc21", data=str(tmp_path / "VOCdevkit"), out=str(tmp_path / "run"))

    def classes(image_labels: str) -> list:
        shards = shard_dataset(config.model_copy(update={"image_labels": image_labels}))
        return [sample.classes for shard in shards for sample in read_shard(RunFolder(config.out), shard)]

    assert [classes("masks"), classes("boxes"), classes("masks")] == [[(15,)], [(12,)], [(15,)]]


def test_picture_without_objects_is_scored_as_background(shared_data, tmp_path):
    annotations = json.loads((shared_data / "coco/annotations/instances_val2017.json").read_text())
    image = annotations["images"][0]
    (tmp_path / "coco/annotations").mkdir(parents=True)
    (tmp_path / "coco/images/val2017").mkdir(parents=True)
    values = {"images": [image], "annotations": [], "categories": annotations["categories"]}
    (tmp_path / "coco/annotations/instances_val2017.json").write_text(json.dumps(values))
    shutil.copy(shared_data / "coco/images/val2017" / image["file_name"], tmp_path / "coco/images/val2017")
    result = run("eval", "coco-object", "--data", str(tmp_path / "coco"), "--out", str(tmp_path / "run"), "--strict")
    assert (result["images_scored"], result["pixel_accuracy"]) == (1, 1.0)


def test_class_subset_scores_only_its_classes(shared_data, tmp_path, without_crf):
    own = ["--data", str(shared_data / "VOCdevkit"), "--out", str(tmp_path / "run")]
    result = run("eval", "voc20", *own, *without_crf, "--only-classes", "sofa,tv monitor")
    assert list(result["per_class_iou"]) == ["sofa", "tvmonitor"]
    assert result["classes"] == 2
    assert {c["name"] for row in rows_of(result) for c in row["classes"]} <= {"sofa", "tvmonitor"}


def test_candidates_from_the_authors_file_are_recorded(shared_data, tmp_path, without_crf):
    file = str(shared_data / "gpt4o_classification/voc_classification_noboundary.json")
    own = ["--data", str(shared_data / "VOCdevkit"), "--limit", "8", "--out", str(tmp_path / "r")]
    result = run("eval", "voc21", *own, *without_crf, "--candidates-file", file)
    answers = json.loads(Path(file).read_text())
    for row in rows_of(result):
        assert row["chosen"] == "file"
        for chosen in row["classes"]:
            assert f"{chosen['id']}: " in answers[row["key"]]
            assert 0.7 < chosen["score"] <= 1


def test_candidates_by_match_score_are_recorded(tmp_path):
    result = run(
        *("eval", "scenes", "--limit", "4", "--shards", "1", "--out", str(tmp_path / "r")),
        *("--candidates", "itm", "--min-score", "0.6", "--top-k", "2"),
    )
    for row in rows_of(result):
        assert 1 <= len(row["classes"]) <= 2
        assert all(c["score"] > 0.6 for c in row["classes"]) or row["chosen"] == "itm, best below the threshold"


def altered_voc(shared_data: Path, root: Path) -> str:
    """Four VOC pictures: one well, three with the altered masks."""
    voc = root / "VOCdevkit/VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    source = shared_data / "VOCdevkit/VOC2012"
    shutil.copy(source / "JPEGImages/2007_000063.jpg", voc / "JPEGImages/well.jpg")
    shutil.copy(source / "SegmentationClass/2007_000063.png", voc / "SegmentationClass/well.png")
    names = ["well"]
    for mask in sorted((shared_data / "hostile_masks").iterdir()):
        names.append(mask.stem)
        shutil.copy(source / "JPEGImages/2007_000063.jpg", voc / f"JPEGImages/{mask.stem}.jpg")
        shutil.copy(mask, voc / "SegmentationClass")
    (voc / "ImageSets/Segmentation/val.txt").write_text("\n".join(names))
    return str(root / "VOCdevkit")


def test_altered_masks_are_quarantined_and_strict_says_so(shared_data, tmp_path):
    data = altered_voc(shared_data, tmp_path)
    command = ["eval", "voc21", "--data", data, "--out", str(tmp_path / "run")]
    result = run(*command)
    assert (result["images"], result["labelled"], result["quarantined"], result["images_scored"]) == (4, 1, 3, 1)
    reasons = " ".join(result["reasons"])
    assert all(part in reasons for part in ("is 250x187 pixels", "is a RGB picture", "no labelled pixel"))
    assert run(*command, "--strict", code=1)["quarantined"] == 3


def test_check_finds_what_is_wrong_and_what_is_missing(shared_data, tmp_path):
    report = run("check", "voc21", "--data", altered_voc(shared_data, tmp_path), code=1)
    assert (report["pictures"], report["usable"], report["ok"]) == (4, 1, False)
    assert "split val lists 4 pictures, officially it has 1449; get the whole from" in report["problems"][0]
    assert len(report["problems"]) == 4


def test_check_of_a_whole_copy_is_well(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "classes.txt").write_text("cat\n")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "images/a.png")
    Image.fromarray(np.ones((64, 64), dtype=np.uint8)).save(tmp_path / "masks/a.png")
    report = run("check", "folder", "--data", str(tmp_path))
    assert (report["pictures"], report["usable"], report["ok"]) == (1, 1, True)
    Image.new("RGB", (4, 4)).save(tmp_path / "images/alone.jpg")
    alone = run("check", "folder", "--data", str(tmp_path), code=1)
    assert alone["problems"] == ["pictures without ground truth: 1, such as alone"]
    (tmp_path / "images/alone.jpg").unlink()
    (tmp_path / "images/a.png").write_bytes((tmp_path / "images/a.png").read_bytes()[:5000])
    report = run("check", "folder", "--data", str(tmp_path), code=1)
    assert "images/a.png" in report["problems"][0]


def own_masks(folder: Path, *masks: np.ndarray, classes: str = "cat\ndog\n") -> str:
    """A folder of pictures with these masks; returns its path."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    (folder / "classes.txt").write_text(classes)
    for number, mask in enumerate(masks):
        noise = np.random.default_rng(number).integers(0, 255, (*mask.shape, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"images/{number}.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / f"masks/{number}.png")
    return str(folder)


NO_CLASS = "no class occurs in any of 2 masks: there is nothing but background (0), and 23.8% of the pixels are 255"


def test_masks_of_0_and_255_alone_are_not_well_and_their_score_is_warned_of(shared_data, tmp_path):
    data = str(shared_data / "wild/masks-0-255")
    report = run("check", "folder", "--data", data, code=1)
    assert not report["ok"]
    assert report["problems"][0].startswith(NO_CLASS)
    shown = runner.invoke(app, ["check", "folder", "--data", data])
    assert "all well" not in shown.output
    command = ["eval", "folder", "--data", data, "--out", str(tmp_path / "run"), "--candidates", "vocabulary"]
    done = runner.invoke(app, [*command, "--preset", "tiny", "--json"])
    assert done.exit_code == 0, done.output
    (warning,) = json.loads(done.stdout.strip().splitlines()[-1])["warnings"]
    assert warning.startswith(f"the score means nothing: {NO_CLASS}")
    assert f"warning: {warning}" in " ".join(done.stderr.split())
    assert "the score means nothing" in (tmp_path / "run/report/index.html").read_text()


def test_masks_of_background_alone_are_not_well(tmp_path):
    report = run("check", "folder", "--data", own_masks(tmp_path, np.zeros((9, 9))), code=1)
    assert report["problems"] == ["no class occurs in any of 1 masks: all is background"]


def test_classes_that_never_occur_and_void_that_fills_a_picture_are_remarks(tmp_path):
    bare = np.where(np.eye(9), 255, 0)
    filled = np.full((9, 9), 255)
    filled[0, 0] = 1
    data = own_masks(tmp_path, np.ones((9, 9)), filled, bare)
    report = run("check", "folder", "--data", data)
    assert (report["ok"], report["problems"]) == (True, [])
    assert report["remarks"] == [
        "1 of 2 classes occur in no mask (dog)",
        "1 of 3 masks are nearly all void (255), which is never scored (images/1.png)",
        "1 of 3 masks hold 0 and 255 alone, background and void: is 255 meant as a class? (images/2.png)",
    ]
    assert (
        "remark: 1 of 2 classes occur in no mask (dog)"
        in runner.invoke(app, ["check", "folder", "--data", data]).output
    )


def test_own_masks_carry_the_cards_palette(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "classes.txt").write_text("car\n")
    Image.new("RGB", (40, 20), (200, 0, 0)).save(tmp_path / "images/a.png")
    Image.fromarray(np.ones((20, 40), dtype=np.uint8)).save(tmp_path / "masks/a.png")
    (tmp_path / "mine.yaml").write_text(
        "extends: folder\nname: mine\nversion: 1\ntitle: x\npalette: ['#102030', '#a0b0c0']\n"
    )
    result = run("eval", str(tmp_path / "mine.yaml"), "--data", str(tmp_path), "--out", str(tmp_path / "run"))
    (row,) = rows_of(result)
    assert decode_label_map(row["mask"]["bytes"]).shape == (20, 40)
    with Image.open(io.BytesIO(row["mask"]["bytes"])) as mask:
        assert (mask.getpalette() or [])[:6] == [0x10, 0x20, 0x30, 0xA0, 0xB0, 0xC0]


def test_datasets_lists_every_card():
    result = runner.invoke(app, ["datasets", "--json"])
    assert [card["name"] for card in json.loads(result.stdout)] == sorted([*ROOTS, "coco-stuff", "folder", "scenes"])


def test_candidates_reports_entries_means_and_repairs(shared_data):
    file = str(shared_data / "gpt4o_classification/voc_classification_noboundary.json")
    result = run("candidates", file, "--dataset", "voc21", "--fallback", "first")
    assert (result["entries"], result["fallbacks"], len(result["repairs"])) == (983, 4, 3)
    assert result["kept"] == pytest.approx(1.395, abs=0.001)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "voc21", "--out", "{t}/o"], "say where with --data"),
        (["eval", "scenes", "--data", "{t}", "--out", "{t}/o"], "leave out --data"),
        (["eval", "voc21", "--data", "{t}/none", "--out", "{t}/o"], "does not exist; voc21 needs the folder VOCdevkit"),
        (["eval", "scenes", "--only-classes", "carr", "--out", "{t}/o"], "did you mean 'car'"),
        (["eval", "scenes", "--only-classes", "background", "--out", "{t}/o"], "name at least one class"),
        (["eval", "scenes", "--mean", "median", "--out", "{t}/o"], "score.mean"),
        (["eval", "scenes", "--candidates", "itn", "--out", "{t}/o"], "unknown source of candidate classes 'itn'"),
        (["eval", "scenes", "--candidates", "file", "--out", "{t}/o"], "need both source 'file' and the file"),
        (["eval", "scenes", "--candidates-file", "{t}/x.json", "--out", "{t}/o"], "cannot read candidates file"),
        (["check", "voc21", "--data", "{t}/none"], "does not exist"),
        (["check", "scenes", "--data", "{t}"], "there is nothing to check"),
        (["eval", "scenes", "--only-classes", "", "--out", "{t}/o"], "unknown class of dataset scenes ''"),
        (["candidates", "{t}/none.json", "--dataset", "folder"], "say where with --data"),
        (["label", "{t}", "--classes", "car", "--candidates", "labels", "--out", "{t}/o"], "no image-level labels"),
        (["label", "{t}", "--classes", "Background,car", "--out", "{t}/o"], "is label 0 already"),
        (["candidates", "{t}/none.json", "--dataset", "voc21"], "cannot read candidates file"),
        (["candidates", "{t}/none.json", "--dataset", "voc"], "unknown dataset 'voc'; did you mean"),
        (["eval", "{t}/none.yaml", "--data", "{t}", "--out", "{t}/o"], "cannot read dataset card"),
    ],
)
def test_mistakes_end_with_one_clear_line(tmp_path, arguments, message):
    result = runner.invoke(app, [argument.replace("{t}", str(tmp_path)) for argument in arguments])
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.strip().splitlines() if "error: " in line]
    assert len(lines) == 1, result.stderr
    assert message in lines[0]
    assert "Traceback" not in result.stderr


def test_void_as_background_needs_a_background(shared_data, tmp_path):
    data = str(shared_data / "VOCdevkit")
    result = runner.invoke(app, ["eval", "voc20", "--data", data, "--void-as-background", "--out", str(tmp_path / "o")])
    assert result.exit_code == 2
    assert "makes no sense for voc20" in result.stderr
