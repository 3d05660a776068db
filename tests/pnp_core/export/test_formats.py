"""Exports for other tools, opened by these tools and compared with the masks of the run."""

from __future__ import annotations

import io
import json
import runpy
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO
from scipy.ndimage import binary_dilation, binary_fill_holes, label

from pnp_core.checks.output import verify
from pnp_core.data import Sample, ShardRef
from pnp_core.errors import UsageError
from pnp_core.export import FORMATS, export_run
from pnp_core.export.folder import ExportFolder
from pnp_core.export.labelled import Finished, Labelled, Part
from pnp_core.export.labelstudio import brush_code
from pnp_core.storage.completion import StageFolder
from pnp_core.storage.run_folder import RunFolder
from tests.pnp_core.export.test_export import masks_of, rows_of

FLOOR = 0.9
CORNERS_TOO = np.ones((3, 3))


def confidence_of(run: Path) -> dict[str, np.ndarray]:
    return {row["key"]: np.array(Image.open(io.BytesIO(row["confidence"]["bytes"]))) for row in rows_of(run)}


def pieces_of(labels: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Label and pixels of every connected piece, found here."""
    found = []
    for one in np.unique(labels):
        if one not in (0, np.iinfo(labels.dtype).max):
            numbers, count = label(labels == one, CORNERS_TOO)
            found += [(int(one), numbers == n) for n in range(1, count + 1)]
    return found


def as_set(pieces) -> list[tuple[int, bytes]]:
    return sorted((int(one), np.packbits(where).tobytes()) for one, where in pieces)


def test_instances_of_coco_are_the_connected_pieces_with_their_mean_confidence(evaluated, tmp_path):
    export_run(str(evaluated), "coco-rle", str(tmp_path), instances=True)
    coco = COCO(str(tmp_path / "annotations.json"))
    masks, confidence = masks_of(evaluated), confidence_of(evaluated)
    for image in coco.imgs.values():
        assert "/" not in image["file_name"]
        name = Path(image["file_name"]).stem
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        built = [(a["category_id"], coco.annToMask(a).astype(bool)) for a in annotations]
        assert as_set(built) == as_set(pieces_of(masks[name]))
        for annotation, (_, where) in zip(annotations, built, strict=True):
            assert annotation["score"] == pytest.approx(confidence[name][where].mean() / 255, abs=1e-4)


def test_supervision_and_torchvision_read_coco(evaluated, tmp_path):
    sv = pytest.importorskip("supervision")
    from torchvision.datasets import CocoDetection

    export_run(str(evaluated), "coco-rle", str(tmp_path), instances=True)
    images, file = str(tmp_path / "images"), str(tmp_path / "annotations.json")
    masks = masks_of(evaluated)
    loaded = sv.DetectionDataset.from_coco(images, file, force_masks=True)
    assert len(loaded) == len(CocoDetection(images, file)) == 8
    number = {name: loaded.classes.index(name) for name in loaded.classes}
    classes = json.loads((tmp_path / "annotations.json").read_text())["categories"]
    for path, _, found in loaded:
        pieces = [(number[classes[one - 1]["name"]], where) for one, where in pieces_of(masks[Path(path).stem])]
        read = [] if found.mask is None else zip(found.class_id, np.asarray(found.mask), strict=True)
        assert as_set(read) == as_set(pieces)


def test_without_pictures_coco_names_the_pictures_own_files(evaluated, tmp_path):
    export_run(str(evaluated), "coco-rle", str(tmp_path), images=False)
    images = json.loads((tmp_path / "annotations.json").read_text())["images"]
    assert all(image["file_name"] == image["source"].rsplit("/", 1)[-1] for image in images)


@pytest.mark.parametrize("val", [None, 0.5])
def test_supervision_reads_yolo_and_every_piece_comes_back_to_its_border(evaluated, tmp_path, val):
    sv = pytest.importorskip("supervision")
    summary = export_run(str(evaluated), "yolo", str(tmp_path), val=val)
    masks, seen = masks_of(evaluated), set()
    for split in ("train", "val") if val else ("train",):
        loaded = sv.DetectionDataset.from_yolo(
            str(tmp_path / f"images/{split}"), str(tmp_path / f"labels/{split}"), str(tmp_path / "data.yaml"), True
        )
        assert loaded.classes[:2] == ["heart", "mushroom"]
        if val:
            assert len(loaded) == summary.splits[split] > 0
        for path, _, found in loaded:
            name = Path(path).stem
            seen.add(name)
            pieces = pieces_of(masks[name])
            assert [int(n) + 1 for n in found.class_id] == [one for one, _ in pieces]
            for read, (_, where) in zip(found.mask if pieces else (), pieces, strict=True):
                # It rounds points, where ultralytics cuts them: a pixel more to the right and below.
                whole = binary_fill_holes(where)
                assert (whole <= read).all()
                assert (read <= binary_dilation(whole, CORNERS_TOO)).all()
    assert seen == set(masks)


def test_yolo_follows_the_rules_of_ultralytics(evaluated, tmp_path):
    export_run(str(evaluated), "yolo", str(tmp_path), FLOOR, val=0.4)
    data = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert list(data["names"]) == list(range(20))
    assert "path" not in data  # then it is the folder of the file
    names = set()
    for split in ("train", "val"):
        for image in sorted((tmp_path / data[split]).iterdir()):
            # Where it looks for labels: the last `images` in the path becomes `labels`.
            text = Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt").read_text()
            names.add(image.stem)
            for line in text.splitlines():
                number, *values = line.split()
                assert int(number) in data["names"]
                assert len(values) >= 6
                assert len(values) % 2 == 0
                assert all(0 <= float(value) <= 1 for value in values)
            with Image.open(image) as opened:
                shape = opened.size[::-1]
            pieces = pieces_of(masks_of(evaluated, FLOOR)[image.stem])
            assert as_set(as_ultralytics(line, shape) for line in text.splitlines()) == as_set(
                (one, binary_fill_holes(where)) for one, where in pieces
            )
    assert names == set(masks_of(evaluated))


def as_ultralytics(line: str, shape: tuple[int, int]) -> tuple[int, np.ndarray]:
    """A line as its loader takes it: float32, times width and height, cut to whole numbers, filled by OpenCV."""
    number, *values = line.split()
    points = np.array(values, dtype=np.float32).reshape(-1, 2) * np.array(shape[::-1], np.float32)
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    return int(number) + 1, mask.astype(bool)


@pytest.mark.parametrize("instances", [False, True])
def test_label_studios_converter_reads_the_brush_masks(evaluated, tmp_path, instances):
    from label_studio_converter.brush import decode_rle
    from label_studio_tools.core.label_config import parse_config

    export_run(str(evaluated), "labelstudio", str(tmp_path), FLOOR, instances=instances)
    tag = parse_config((tmp_path / "label_config.xml").read_text())["label"]
    assert (tag["type"], tag["to_name"], tag["inputs"]) == (
        "BrushLabels",
        ["image"],
        [{"type": "Image", "value": "image"}],
    )
    expected, seen = masks_of(evaluated, FLOOR), []
    for file in sorted((tmp_path / "tasks").iterdir()):
        for task in json.loads(file.read_text()):
            path = task["data"]["image"].removeprefix("/data/local-files/?d=")
            labels = expected[task["data"]["name"]]
            (prediction,) = task["predictions"]
            built = []
            for result in prediction["result"]:
                (name,) = result["value"]["brushlabels"]
                shape = result["original_height"], result["original_width"], 4
                opacity = decode_rle(result["value"]["rle"]).reshape(shape)[..., 3]
                assert set(np.unique(opacity)) <= {0, 255}
                assert 0 < result["score"] <= 1
                built.append((tag["labels"].index(name) + 1, opacity > 0))
            wanted = pieces_of(labels) if instances else [(n, labels == n) for n in np.unique(labels) if 0 < n < 255]
            assert as_set(built) == as_set(wanted)
            with Image.open(tmp_path / path) as image:
                assert image.size[::-1] == labels.shape
            seen.append(task["data"]["name"])
    assert seen == list(expected)


def test_brush_code_of_long_runs_and_of_runs_of_all_lengths():
    from label_studio_converter.brush import decode_rle

    long = np.zeros((300, 400), bool)
    long[120:] = True
    lengths = np.repeat(np.arange(140) % 2 == 1, np.arange(140))[None]
    for mask in (long, ~long, lengths, np.ones((1, 1), bool)):
        decoded = decode_rle(list(brush_code(mask))).reshape(*mask.shape, 4)
        assert np.array_equal(decoded, np.repeat(mask[..., None] * np.uint8(255), 4, axis=2))


@pytest.mark.parametrize("instances", [False, True])
def test_cvats_own_code_reads_the_masks_of_its_xml(evaluated, tmp_path, instances):
    from cvat_sdk.masks import decode_mask, encode_mask

    export_run(str(evaluated), "cvat", str(tmp_path), FLOOR, instances=instances)
    root = ElementTree.parse(tmp_path / "annotations.xml").getroot()
    assert (root.tag, root.findtext("version")) == ("annotations", "1.1")
    names = [one.findtext("name") for one in root.iterfind("meta/task/labels/label")]
    raw = json.loads((tmp_path / "labels.json").read_text())
    assert [one["name"] for one in raw] == names
    assert {one["type"] for one in raw} == {"mask"}
    expected, seen = masks_of(evaluated, FLOOR), []
    for number, image in enumerate(root.iterfind("image")):
        assert image.get("id") == str(number)
        width, height = int(image.get("width")), int(image.get("height"))
        labels = expected[Path(image.get("name")).stem]
        built = []
        for mask in image:
            left, top, wide, high = (int(mask.get(name)) for name in ("left", "top", "width", "height"))
            runs = [int(run) for run in mask.get("rle").split(",")]
            # As CVAT's importer makes points of it.
            points = [*runs, left, top, left + wide - 1, top + high - 1]
            where = decode_mask(points, image_width=width, image_height=height)
            assert encode_mask(where) == points
            assert (mask.tag, mask.get("occluded"), mask.get("z_order")) == ("mask", "0", "0")
            built.append((names.index(mask.get("label")) + 1, where))
        wanted = pieces_of(labels) if instances else [(n, labels == n) for n in np.unique(labels) if 0 < n < 255]
        assert as_set(built) == as_set(wanted)
        with Image.open(tmp_path / "images" / image.get("name")) as opened:
            assert opened.size == (width, height)
        seen.append(Path(image.get("name")).stem)
    assert seen == list(expected)


def test_torchvision_reads_voc(evaluated, tmp_path):
    from torchvision.datasets import VOCSegmentation

    out = tmp_path / "VOCdevkit/VOC2012"
    summary = export_run(str(evaluated), "voc", str(out), FLOOR, val=0.5, instances=True)
    expected, seen = masks_of(evaluated, FLOOR), set()
    for split in ("train", "val"):
        loaded = VOCSegmentation(str(tmp_path), image_set=split)
        assert len(loaded) == summary.splits[split]
        for file, (image, mask) in zip(loaded.masks, loaded, strict=True):
            name = Path(file).stem
            assert image.size == mask.size
            assert mask.mode == "P"
            assert np.array_equal(np.array(mask), expected[name])
            objects = np.array(Image.open(out / f"SegmentationObject/{name}.png"))
            found = [(int(expected[name][objects == n][0]), objects == n) for n in np.unique(objects) if 0 < n < 255]
            assert as_set(found) == as_set(pieces_of(expected[name]))
            seen.add(name)
    assert seen == set(expected)
    assert (out / "ImageSets/Segmentation/trainval.txt").read_text().split() == sorted(seen)
    colours = [line.split(":")[:2] for line in (out / "labelmap.txt").read_text().splitlines()[1:]]
    assert colours[:2] == [["background", "0,0,0"], ["heart", "128,0,0"]]


def test_webdataset_reads_its_tars(evaluated, tmp_path):
    import webdataset as wds

    summary = export_run(str(evaluated), "webdataset", str(tmp_path), FLOOR, val=0.5)
    expected, seen = masks_of(evaluated, FLOOR), defaultdict(list)
    names = json.loads((tmp_path / "classes.json").read_text())
    assert (names["names"][:2], names["void"]) == (["background", "heart"], 255)
    for split in ("train", "val"):
        tars = sorted(map(str, tmp_path.glob(f"{split}-*.tar")))
        for sample in wds.WebDataset(tars, shardshuffle=False):
            labels = np.array(Image.open(io.BytesIO(sample["mask.png"])))
            image, about = Image.open(io.BytesIO(sample["jpg"])), json.loads(sample["json"])
            assert np.array_equal(labels, expected[sample["__key__"]])
            assert image.size[::-1] == labels.shape == (about["height"], about["width"])
            assert {int(n): pixels for n, pixels in about["pixels"].items()} == {
                int(n): int((labels == n).sum()) for n in np.unique(labels) if 0 < n < 255
            }
            seen[split].append(sample["__key__"])
    assert {split: len(keys) for split, keys in seen.items()} == summary.splits
    assert sorted(seen["train"] + seen["val"]) == sorted(expected)


def test_hugging_face_datasets_knows_the_classes_and_splits(evaluated, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    summary = export_run(str(evaluated), "hf", str(tmp_path / "out"), val=0.5)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {
        "train": summary.splits["train"],
        "validation": summary.splits["val"],
    }
    feature = loaded["train"].features["labels"].feature
    assert feature.names[:2] == ["background", "heart"]
    expected = masks_of(evaluated)
    for row in [*loaded["train"], *loaded["validation"]]:
        assert [feature.int2str(n) for n in row["labels"]] == [
            feature.names[n] for n in np.unique(expected[row["name"]]) if 0 < n < 255
        ]


def test_mmseg_has_a_dataset_for_each_split(evaluated, tmp_path):
    summary = export_run(str(evaluated), "mmseg", str(tmp_path), val=0.5)
    made = runpy.run_path(str(tmp_path / "dataset.py"))
    for split in ("train", "val"):
        config = made[f"{split}_dataset"]
        images, masks = (tmp_path / config["data_prefix"][name] for name in ("img_path", "seg_map_path"))
        stems = {file.name.removesuffix(config["img_suffix"]) for file in images.iterdir()}
        assert stems == {file.name.removesuffix(config["seg_map_suffix"]) for file in masks.iterdir()}
        assert len(stems) == summary.splits[split]
        assert config["reduce_zero_label"] is False  # label 0 is background, a class of its own
        assert len(config["metainfo"]["classes"]) == len(config["metainfo"]["palette"]) == 21


def test_masks_are_the_greatest_of_the_soft_maps_and_that_is_their_confidence(evaluated, tmp_path):
    export_run(str(evaluated), "scores", str(tmp_path), images=False)
    confidence = confidence_of(evaluated)
    for name, labels in masks_of(evaluated).items():
        with np.load(tmp_path / f"scores/{name}.npz") as file:
            ids, scores = file["labels"], file["scores"]
        assert (scores.dtype, scores.shape) == (np.uint8, (len(ids), *labels.shape))
        assert np.array_equal(scores.max(axis=0), confidence[name])
        own = np.take_along_axis(scores, np.searchsorted(ids, labels)[None], axis=0)[0]
        assert np.array_equal(own, confidence[name])  # equal ones in 8 bits may be several


def test_splits_stay_when_pictures_are_added_and_grow_with_their_share(evaluated, tmp_path):
    def validation(out: str, share: float, **chosen) -> set[str]:
        export_run(str(evaluated), "mmseg", str(tmp_path / out), images=False, val=share, **chosen)
        return {file.stem for file in (tmp_path / out).glob("ann_dir/val/*.png")}

    half, keys = validation("half", 0.5), sorted(masks_of(evaluated))
    assert validation("quarter", 0.25) <= half <= validation("most", 0.75)
    (tmp_path / "keys.txt").write_text("\n".join(keys[:5]))
    assert validation("some", 0.5, only=str(tmp_path / "keys.txt")) == half & set(keys[:5])


def test_only_the_pictures_that_are_named_are_written(evaluated, tmp_path):
    keys = sorted(masks_of(evaluated))[2:4]
    (tmp_path / "keys.txt").write_text(f"\ufeff{keys[1]}\r\n\r\n  {keys[0]} \r\n", encoding="utf-8")
    summary = export_run(str(evaluated), "png", str(tmp_path / "out"), images=False, only=str(tmp_path / "keys.txt"))
    assert summary.images == 2
    assert sorted(file.stem for file in (tmp_path / "out/masks").iterdir()) == keys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"nobody\nnothing\nnever\nnone\n", r"has no mask of: 'never', 'nobody', 'none' and 1 more"),
        (b"\n \n", "names no picture: one key per line is wanted"),
        (b"\xff\xfe\x00", "is no text in UTF-8"),
        (None, "cannot read .*: No such file"),
    ],
)
def test_file_of_keys_that_is_of_no_use_is_named(evaluated, tmp_path, text, message):
    if text is not None:
        (tmp_path / "keys.txt").write_bytes(text)
    with pytest.raises(UsageError, match=message):
        export_run(str(evaluated), "png", str(tmp_path / "out"), only=str(tmp_path / "keys.txt"))
    assert not (tmp_path / "out").exists()


def test_small_and_unsure_pieces_become_void(evaluated, tmp_path):
    summary = export_run(str(evaluated), "png", str(tmp_path), images=False, min_area=200, min_confidence=0.8)
    confidence, dropped = confidence_of(evaluated), 0
    for name, labels in masks_of(evaluated).items():
        expected = labels.copy()
        for _, where in pieces_of(labels):
            if where.sum() < 200 or confidence[name][where].mean() / 255 < 0.8:
                expected[where] = 255
                dropped += 1
        assert np.array_equal(np.array(Image.open(tmp_path / f"masks/{name}.png")), expected)
    assert summary.dropped == dropped > 0


@pytest.mark.parametrize(
    ("to", "asked", "message"),
    [
        ("png", {"instances": True}, "format 'png' has no single objects: leave out --instances"),
        ("coco-rle", {"val": 0.1}, "format 'coco-rle' has no splits: leave out --val"),
        ("scores", {"min_area": 3}, "format 'scores' has no void: leave out --confidence, --min-area"),
        ("mmseg", {"val": 1.0}, "the share of pictures for validation is between 0 and 1, not 1"),
    ],
)
def test_what_a_format_has_no_place_for_is_refused(evaluated, tmp_path, to, asked, message):
    with pytest.raises(UsageError, match=message):
        export_run(str(evaluated), to, str(tmp_path / "out"), **asked)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", sorted(FORMATS))
def test_export_made_again_is_the_same_bytes_and_verified(evaluated, tmp_path, to):
    def files() -> dict[str, bytes]:
        return {
            str(file.relative_to(tmp_path)): file.read_bytes()
            for file in tmp_path.rglob("*")
            if file.is_file() and ".pnp-ovss" not in file.parts
        }

    floor = None if to == "scores" else FLOOR
    export_run(str(evaluated), to, str(tmp_path), floor)
    before = files()
    (tmp_path / "mine.txt").write_text("mine")
    export_run(str(evaluated), to, str(tmp_path), floor)
    assert files() == before | {"mine.txt": b"mine"}
    found = verify(str(tmp_path))
    assert found.whole
    assert found.strangers == ["mine.txt"]


NOWHERE = Part(ShardRef("000000", 1, 0, ""), StageFolder(RunFolder("nowhere"), "masks", "0" * 16))
MANY = 1203
LABELS = np.array([[255, 255, 0, 1203], [256, 0, 0, 1203], [0, 65535, 1, 0]], np.uint16)
"""Hand-made: ids 255, 256 and 1203 of 1203 classes, and a pixel of void."""


def export_many(to: str, out: Path) -> None:
    """Write the one hand-made image as a run of 1203 classes."""
    names = tuple(f"<class> & {n}" for n in range(1, MANY + 1))
    finished = Finished("many", (), names, False, "model", tuple(f"#{n:06x}" for n in range(MANY + 1)))
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3)).save(buffer, format="JPEG")
    sample = Sample(key="one", image=buffer.getvalue(), extension="jpg", source="a/one.jpg")
    image = Labelled("one", "a/one.jpg", sample, LABELS, np.zeros((256, 3), np.uint8), {}, NOWHERE)
    target = ExportFolder(str(out))
    with FORMATS.get(to)(target, finished, True) as writer:
        writer.add(image)
    target.flush()


NUMBERS = [1, 255, 256, 1203]


def test_many_classes_in_coco(tmp_path):
    export_many("coco-rle", tmp_path)
    coco = COCO(str(tmp_path / "annotations.json"))
    built = np.zeros_like(LABELS)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        built[coco.annToMask(annotation).astype(bool)] = annotation["category_id"]
    void = coco.imgs[1]["void"]
    built[coco.annToMask({"image_id": 1, "segmentation": void}).astype(bool)] = 65535
    assert np.array_equal(built, LABELS)


def test_many_classes_in_yolo(tmp_path):
    export_many("yolo", tmp_path)
    lines = [as_ultralytics(line, (3, 4)) for line in (tmp_path / "labels/train/one.txt").read_text().splitlines()]
    assert as_set(lines) == as_set(pieces_of(LABELS))


def test_many_classes_in_masks_of_16_bits(tmp_path):
    for to, place in (("png", "masks/one.png"), ("webdataset", None), ("hf", None)):
        export_many(to, tmp_path / to)
        if place:
            with Image.open(tmp_path / to / place) as image:
                assert image.mode == "I;16"
                assert np.array_equal(np.array(image), LABELS)
    import webdataset as wds

    (sample,) = wds.WebDataset(str(tmp_path / "webdataset/train-000000.tar"), shardshuffle=False)
    assert np.array_equal(np.array(Image.open(io.BytesIO(sample["mask.png"]))), LABELS)
    import datasets

    loaded = datasets.Dataset.from_parquet(str(tmp_path / "hf/data/train-00000.parquet"), cache_dir=str(tmp_path / "c"))
    assert np.array_equal(np.array(loaded[0]["mask"]), LABELS)
    assert loaded[0]["labels"] == NUMBERS
    assert loaded.features["labels"].feature.int2str(1203) == "<class> & 1203"
    assert (tmp_path / "png/classes.csv").read_text().splitlines()[-1].startswith("65535,void")


def test_many_classes_in_cvat_and_label_studio(tmp_path):
    export_many("cvat", tmp_path / "cvat")
    root = ElementTree.parse(tmp_path / "cvat/annotations.xml").getroot()
    assert [mask.get("label") for mask in root.iter("mask")] == [f"<class> & {n}" for n in NUMBERS]
    export_many("labelstudio", tmp_path / "studio")
    config = ElementTree.parse(tmp_path / "studio/label_config.xml").getroot()
    assert [one.get("value") for one in config.iter("Label")][1202] == "<class> & 1203"
    (task,) = json.loads((tmp_path / "studio/tasks/00000.json").read_text())
    names = [result["value"]["brushlabels"] for result in task["predictions"][0]["result"]]
    assert names == [[f"<class> & {n}"] for n in NUMBERS]


@pytest.mark.parametrize("to", ["mmseg", "voc"])
def test_too_many_classes_for_a_format_are_refused(tmp_path, to):
    with pytest.raises(UsageError, match=r"'many' has 1203 classes, and masks of .* have 254 at most: use --to png"):
        export_many(to, tmp_path)


def test_too_many_objects_for_voc_are_named(evaluated, tmp_path):
    labels = np.zeros((40, 40), np.uint8)
    labels[::2, ::2] = 1
    finished = Finished("many", (), ("dot",), False, "model", ("#000000", "#ffffff"))
    sample = Sample(key="dots", image=b"", extension="jpg", source="dots")
    image = Labelled("dots", "dots", sample, labels, np.zeros((256, 3), np.uint8), {}, NOWHERE, instances=True)
    with (
        pytest.raises(UsageError, match="picture 'dots' has more than 254 objects"),
        FORMATS.get("voc")(ExportFolder(str(tmp_path)), finished, False) as writer,
    ):
        writer.add(image)
