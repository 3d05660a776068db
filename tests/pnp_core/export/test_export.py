"""Every export is read back by the library it is meant for, and compared with the masks of the run."""

from __future__ import annotations

import ast
import csv
import io
import json
import runpy
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from pnp_core.errors import CorruptRunError, DamagedError, ForeignFilesError, UsageError
from pnp_core.export import export_run
from pnp_core.export.png import Png
from pnp_core.inputs.images import decode_image, decode_label_map
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import INDEX, unpack

FLOOR = 0.9


def rows_of(run: Path) -> list[dict]:
    return [row for file in sorted((run / "masks").rglob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def masks_of(run: Path, floor: float | None = None) -> dict[str, np.ndarray]:
    """Labels by key, computed here: below the floor 255."""
    found = {}
    for row in rows_of(run):
        labels = decode_label_map(row["mask"]["bytes"])
        if floor is not None:
            confidence = np.array(Image.open(io.BytesIO(row["confidence"]["bytes"]))) / 255
            labels = np.where(confidence < floor, 255, labels).astype(np.uint8)
        found[row["key"]] = labels
    return found


def images_of(run: Path) -> dict[str, bytes]:
    shards = pq.read_table(run / INDEX)["shard"].to_pylist()
    return {s.key: s.image for name in shards for s in unpack((run / f"shards/{name}.tar").read_bytes())}


@pytest.mark.parametrize("floor", [None, FLOOR])
def test_png_export_holds_the_masks_and_says_what_they_are_of(evaluated, tmp_path, floor):
    export_run(str(evaluated), "png", str(tmp_path), floor, images=False)
    expected = masks_of(evaluated, floor)
    rows = list(csv.DictReader((tmp_path / "index.csv").open(encoding="utf-8")))
    assert [row["name"] for row in rows] == list(expected)
    for row in rows:
        with Image.open(tmp_path / f"masks/{row['name']}.png") as image:
            assert image.mode == "P"
            assert np.array_equal(np.array(image), expected[row["name"]])
        assert row["source"] == f"scenes/test/{int(row['name'][-5:])}"
        assert [int(n) for n in row["labels"].split()] == [n for n in np.unique(expected[row["name"]]) if 0 < n < 255]
    classes = list(csv.DictReader((tmp_path / "classes.csv").open(encoding="utf-8")))
    assert [classes[i]["name"] for i in (0, 1, 20, 21)] == ["background", "heart", "rocket", "void"]


def test_floor_makes_unsure_pixels_void_and_they_are_counted(evaluated, tmp_path):
    summary = export_run(str(evaluated), "png", str(tmp_path), FLOOR, images=False)
    void = [labels == 255 for labels in masks_of(evaluated, FLOOR).values()]
    assert 0 < summary.void < 1
    assert summary.void == pytest.approx(np.mean(void))


@pytest.mark.parametrize("floor", [None, FLOOR])
def test_pycocotools_reads_the_masks_back(evaluated, tmp_path, floor, capsys):
    export_run(str(evaluated), "coco-rle", str(tmp_path), floor)
    coco = COCO(str(tmp_path / "annotations.json"))
    expected = masks_of(evaluated, floor)
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())][:2] == ["heart", "mushroom"]
    assert len(coco.imgs) == len(expected)
    for image in coco.imgs.values():
        labels = expected[Path(image["file_name"]).stem]
        built = np.zeros_like(labels)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            where = coco.annToMask(annotation).astype(bool)
            assert (where.sum(), bool(built[where].any())) == (annotation["area"], False)
            built[where] = annotation["category_id"]
        if floor is not None and "void" in image:
            built[coco.annToMask({"image_id": image["id"], "segmentation": image["void"]}).astype(bool)] = 255
        assert np.array_equal(built, labels)
        with Image.open(tmp_path / "images" / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])


@pytest.mark.parametrize("floor", [None, FLOOR])
def test_hugging_face_datasets_reads_pictures_and_masks_back(evaluated, tmp_path, floor, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    export_run(str(evaluated), "hf", str(tmp_path / "out"), floor)
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    expected, images = masks_of(evaluated, floor), images_of(evaluated)
    assert loaded["name"][:] == list(expected)
    for row in loaded:
        assert np.array_equal(np.array(row["mask"]), expected[row["name"]])
        assert np.array_equal(np.array(row["image"]), decode_image(images[row["name"]], 10**8).pixels)
        assert row["labels"] == [n for n in np.unique(expected[row["name"]]) if 0 < n < 255]


def test_mmseg_export_has_a_mask_of_its_size_for_every_jpeg(evaluated, tmp_path):
    export_run(str(evaluated), "mmseg", str(tmp_path), FLOOR)
    expected = masks_of(evaluated, FLOOR)
    images = {file.stem: file for file in (tmp_path / "img_dir/train").iterdir()}
    assert set(images) == {file.stem for file in (tmp_path / "ann_dir/train").iterdir()} == set(expected)
    for name, file in images.items():
        with Image.open(file) as image, Image.open(tmp_path / f"ann_dir/train/{name}.png") as mask:
            assert (image.format, image.size) == ("JPEG", mask.size)
            assert np.array_equal(np.array(mask), expected[name])
    config = runpy.run_path(str(tmp_path / "dataset.py"))["train_dataset"]
    assert (config["img_suffix"], config["ignore_index"]) == (".jpg", 255)
    assert config["metainfo"]["classes"][:2] == ["background", "heart"]


HOSTILE = "'); import os; os._exit(3) #"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """A run over a turned JPEG, a PNG with transparency, and an empty file, with class names that try things."""
    from flows.pipelines.labelling import label
    from pnp_core.config import LabelConfig

    folder = tmp_path_factory.mktemp("hostile")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    (folder / "in/up/$(x)").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(folder / "in/turned.jpg", exif=exif)
    Image.fromarray(np.dstack([pixels, pixels[..., 0]])).save(folder / "in/up/$(x)/=cmd|calc.png")
    (folder / "in/empty.png").write_bytes(b"")
    values = {"source": str(folder / "in"), "out": str(folder / "run"), "classes": [HOSTILE, "heart"]}
    candidates = {"candidates": {"source": "vocabulary"}, "dropout": {"iterations": 1}}
    label(LabelConfig.model_validate({**values, "preset": "tiny", "salience": candidates}))
    return folder / "run"


def test_class_names_cannot_leave_their_place(hostile, tmp_path):
    export_run(str(hostile), "mmseg", str(tmp_path / "mm"))
    text = (tmp_path / "mm/dataset.py").read_text()
    ast.parse(text)
    assert runpy.run_path(str(tmp_path / "mm/dataset.py"))["metainfo"]["classes"][1] == HOSTILE
    export_run(str(hostile), "coco-rle", str(tmp_path / "coco"))
    assert json.loads((tmp_path / "coco/annotations.json").read_text())["categories"][0]["name"] == HOSTILE


def test_turned_and_transparent_pictures_come_out_upright_and_flat(hostile, tmp_path):
    export_run(str(hostile), "mmseg", str(tmp_path))
    sizes = {}
    for file in (tmp_path / "img_dir/train").iterdir():
        with Image.open(file) as image, Image.open(tmp_path / f"ann_dir/train/{file.stem}.png") as mask:
            assert (image.size, image.mode, image.getexif().get(0x0112, 1)) == (mask.size, "RGB", 1)
            sizes[file.stem.split("-")[0]] = image.size
    assert (40, 60) in sizes.values()
    assert (60, 40) in sizes.values()


@pytest.mark.parametrize("asked", [{"floor": 0.5}, {"min_confidence": 0.5}])
def test_confidence_that_was_not_kept_says_how_to_get_it(hostile, tmp_path, asked):
    with pytest.raises(UsageError, match="run its command again with --confidence"):
        export_run(str(hostile), "png", str(tmp_path / "out"), **asked)
    assert not (tmp_path / "out").exists()


def test_class_names_cannot_leave_their_place_in_yaml_and_xml(hostile, tmp_path):
    for to in ("yolo", "cvat", "labelstudio", "voc", "hf"):
        export_run(str(hostile), to, str(tmp_path / to))
    assert yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())["names"] == {0: HOSTILE, 1: "heart"}
    labels = ElementTree.parse(tmp_path / "cvat/annotations.xml").getroot().iterfind("meta/task/labels/label/name")
    assert [label.text for label in labels] == [HOSTILE, "heart"]
    labels = ElementTree.parse(tmp_path / "labelstudio/label_config.xml").getroot().iter("Label")
    assert [label.get("value") for label in labels] == [HOSTILE, "heart"]
    lines = (tmp_path / "voc/labelmap.txt").read_text().splitlines()
    assert [line.count(":") for line in lines] == [3, 3, 3, 3]


def test_soft_maps_of_own_pictures_have_their_masks(hostile, tmp_path):
    export_run(str(hostile), "scores", str(tmp_path), images=False)
    for name, labels in masks_of(hostile).items():
        with np.load(tmp_path / f"scores/{name}.npz") as file:
            ids, scores = file["labels"], file["scores"]
        own = np.take_along_axis(scores, np.searchsorted(ids, labels)[None], axis=0)[0]
        assert np.array_equal(own, scores.max(axis=0))
        assert own.shape == labels.shape


def test_soft_maps_of_a_run_whose_record_is_of_other_masks_are_refused(hostile, tmp_path):
    shutil.copytree(hostile, tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["config"]["masks"]["blur"] = 0.2
    text = json.dumps(record).encode()
    RunFolder(str(tmp_path / "run")).write("run.json", text)
    with pytest.raises(CorruptRunError, match="cannot be made again from its record"):
        export_run(str(tmp_path / "run"), "scores", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_masks_without_a_class_can_be_left_out(evaluated, tmp_path):
    empty = [key for key, labels in masks_of(evaluated, 0.999).items() if not set(np.unique(labels)) - {0, 255}]
    summary = export_run(str(evaluated), "png", str(tmp_path), 0.999, images=False, skip_empty=True)
    assert (summary.skipped, summary.images) == (len(empty), 8 - len(empty))


def test_export_made_again_is_the_same_and_leaves_other_files_alone(evaluated, tmp_path):
    def files() -> dict[str, bytes]:
        return {str(f.relative_to(tmp_path)): f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}

    export_run(str(evaluated), "coco-rle", str(tmp_path))
    before = files()
    mine = {"notes.txt": b"mine", "images/mine.jpg": b"also mine", "masks/mine/note.txt": b"and this"}
    for name, data in mine.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(data)
    export_run(str(evaluated), "coco-rle", str(tmp_path))
    assert files() == before | mine
    export_run(str(evaluated), "coco-rle", str(tmp_path), images=False)
    assert sorted(name for name in files() if name.startswith("images")) == ["images/mine.jpg"]


def test_nothing_is_deleted_that_an_export_did_not_write(evaluated, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.csv").write_text("mine")
    (tmp_path / "export.json").write_text("{}")
    with pytest.raises(ForeignFilesError, match="holds nothing that pnp-ovss has written"):
        export_run(str(evaluated), "hf", str(tmp_path))
    assert (tmp_path / "data/mine.csv").read_text() == "mine"


def test_mask_that_somebody_mended_by_hand_is_not_exported_over(evaluated, tmp_path):
    export_run(str(evaluated), "png", str(tmp_path))
    mask = next(tmp_path.glob("masks/*.png"))
    mask.write_bytes(b"mended")
    with pytest.raises(ForeignFilesError, match=r"\.png' was changed since it was exported"):
        export_run(str(evaluated), "png", str(tmp_path))
    assert mask.read_bytes() == b"mended"
    assert len(list(tmp_path.glob("masks/*.png"))) == 8


def test_file_in_the_way_of_an_export_stays(evaluated, tmp_path):
    export_run(str(evaluated), "png", str(tmp_path), images=False)
    (tmp_path / "pictures").mkdir()
    name = next(tmp_path.glob("masks/*.png")).stem
    (tmp_path / f"pictures/{name}.jpg").write_bytes(b"mine")
    with pytest.raises(ForeignFilesError, match=r"\.jpg' is there and was not written by this run"):
        export_run(str(evaluated), "png", str(tmp_path))
    assert (tmp_path / f"pictures/{name}.jpg").read_bytes() == b"mine"


def test_export_of_another_format_is_refused(evaluated, tmp_path):
    export_run(str(evaluated), "png", str(tmp_path))
    with pytest.raises(ForeignFilesError, match="holds no hf export, but png"):
        export_run(str(evaluated), "hf", str(tmp_path))


def test_damaged_mask_is_not_exported(evaluated, tmp_path):
    shutil.copytree(evaluated, tmp_path / "run")
    table = next((tmp_path / "run").glob("masks/*/*.parquet"))
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 4
    table.write_bytes(data)
    with pytest.raises(DamagedError, match=r"parquet' is damaged: shard 00000. was written with other content"):
        export_run(str(tmp_path / "run"), "png", str(tmp_path / "out"))


def test_export_that_was_killed_is_made_anew(evaluated, tmp_path, monkeypatch):
    monkeypatch.setattr(Png, "add", lambda self, image: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_run(str(evaluated), "png", str(tmp_path), images=False)
    assert not (tmp_path / "export.json").exists()
    monkeypatch.undo()
    assert export_run(str(evaluated), "png", str(tmp_path), images=False).images == 8
    assert not (tmp_path / "export.begun").exists()


def test_run_that_is_not_finished_is_refused(evaluated, tmp_path):
    shutil.copytree(evaluated, tmp_path / "run")
    next((tmp_path / "run").glob("masks/*/*.done.json")).unlink()
    with pytest.raises(CorruptRunError, match="is not finished, or damaged; run its command again"):
        export_run(str(tmp_path / "run"), "png", str(tmp_path / "out"))


def test_quarantined_pictures_are_counted_as_missing(hostile, tmp_path):
    summary = export_run(str(hostile), "png", str(tmp_path), images=False)
    assert (summary.images, summary.missing) == (2, 1)


def test_picture_too_long_for_jpeg_is_named(tmp_path):
    from flows.pipelines.labelling import label
    from pnp_core.config import LabelConfig

    (tmp_path / "in").mkdir()
    Image.new("RGB", (1, 66_000)).save(tmp_path / "in/long.png")
    values = {"source": str(tmp_path / "in"), "out": str(tmp_path / "run"), "classes": ["heart"]}
    salience = {"candidates": {"source": "vocabulary"}, "dropout": {"iterations": 1}}
    label(LabelConfig.model_validate({**values, "preset": "tiny", "salience": salience}))
    with pytest.raises(UsageError, match="picture 'long' has a side of 66000 pixels, and JPEG ends at 65500"):
        export_run(str(tmp_path / "run"), "coco-rle", str(tmp_path / "out"))
    assert export_run(str(tmp_path / "run"), "coco-rle", str(tmp_path / "out"), images=False).images == 1


def test_folder_with_something_else_is_refused(evaluated, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ForeignFilesError, match=r"is not empty \('thesis.tex'\)"):
        export_run(str(evaluated), "png", str(tmp_path))


@pytest.mark.parametrize("gone", ["run.json", INDEX])
def test_folder_without_a_finished_run_is_named(evaluated, tmp_path, gone):
    shutil.copytree(evaluated, tmp_path / "run")
    (tmp_path / "run" / gone).unlink()
    with pytest.raises(CorruptRunError, match="holds no finished run"):
        export_run(str(tmp_path / "run"), "png", str(tmp_path / "out"))


def test_unknown_format_lists_what_there_is(evaluated, tmp_path):
    with pytest.raises(UsageError, match="unknown format 'tfrecord'; available: coco-rle, cvat, hf, "):
        export_run(str(evaluated), "tfrecord", str(tmp_path))
