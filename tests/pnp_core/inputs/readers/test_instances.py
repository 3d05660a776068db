"""Masks painted from COCO annotation files: real samples, and hand-made files for what the samples lack."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_core.data import Sample
from pnp_core.errors import DatasetError
from pnp_core.inputs.cards import load_card
from pnp_core.inputs.readers.base import GroundTruthError
from pnp_core.inputs.readers.instances import paint
from tests.pnp_core.inputs.readers.copies import labels_of, samples_of, save


def test_coco_objects_are_painted_with_their_categories(shared_data):
    root = shared_data / "coco"
    annotations = json.loads((root / "annotations/instances_val2017.json").read_text())
    card = load_card("coco-object")
    samples = {int(s.key): s for s in samples_of("coco-object", root)}
    assert len(samples) == 128
    for image in annotations["images"]:
        labels = labels_of(samples[image["id"]])
        own = [a for a in annotations["annotations"] if a["image_id"] == image["id"]]
        assert labels.shape == (image["height"], image["width"])
        # What is painted is annotated; the largest region of all can be hidden, the smallest never is.
        assert set(np.unique(labels)) <= {0, *(card.label_of[a["category_id"]] for a in own)}
        smallest = min(own, key=lambda a: a["area"])
        if not smallest["iscrowd"]:
            assert card.label_of[smallest["category_id"]] in labels


def square(number: int, category: int, x: int, y: int, side: int, crowd: int = 0) -> dict:
    region: object = [[x, y, x + side, y, x + side, y + side, x, y + side]]
    return {"id": number, "category_id": category, "iscrowd": crowd, "segmentation": region}


def test_small_objects_lie_over_large_ones_whatever_the_order():
    annotations = [square(1, 5, 2, 2, 2), square(2, 7, 0, 0, 8)]
    expected = np.full((8, 8), 2)
    expected[2:4, 2:4] = 1
    assert np.array_equal(paint(annotations, {5: 1, 7: 2}, 8, 8), expected)
    assert np.array_equal(paint(annotations[::-1], {5: 1, 7: 2}, 8, 8), expected)


def test_crowds_lie_below_objects_even_when_smaller():
    # Uncompressed run lengths, column by column: 2 pixels off, 4 on, the rest off.
    crowd = {"id": 1, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [4, 4], "counts": [2, 4, 10]}}
    labels = paint([crowd, square(2, 2, 0, 0, 4)], {1: 1, 2: 2}, 4, 4)
    assert np.array_equal(labels, np.full((4, 4), 2))
    alone = paint([crowd], {1: 1}, 4, 4)
    assert np.array_equal(alone, [[0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]])


def test_a_picture_of_absurd_size_is_named_and_not_painted():
    with pytest.raises(GroundTruthError, match="10000000x1000000 pixels"):
        paint([], {}, 1_000_000, 10_000_000)


@pytest.mark.parametrize("text", ["{}", "[1]", "no json", '{"images": [], "annotations": [{}]}'])
def test_file_that_is_no_coco_annotation_is_refused(tmp_path, text):
    save(tmp_path / "images/val2017/1.jpg", np.zeros((2, 2, 3)))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val2017.json").write_text(text)
    with pytest.raises(DatasetError, match=r"not a COCO annotation file|is empty"):
        samples_of("coco-object", tmp_path)


def coco_of_one(root: Path, region: object, category: int = 1, **image: object) -> Path:
    """One picture of 2 x 2 pixels with one annotation, whose id is 77."""
    entry = {"id": 1, "file_name": "1.jpg", "height": 2, "width": 2, **image}
    annotation = {"id": 77, "image_id": 1, "category_id": category, "iscrowd": 0, "bbox": [0, 0, 1, 1]}
    annotation |= {"segmentation": region}
    values = {"images": [entry], "annotations": [annotation], "categories": [{"id": 1, "name": "person"}]}
    save(root / "images/val2017/1.jpg", np.zeros((2, 2, 3)))
    (root / "annotations").mkdir()
    (root / "annotations/instances_val2017.json").write_text(json.dumps(values))
    return root


@pytest.mark.parametrize(
    ("category", "region", "why"),
    [
        (999, [[0, 0, 2, 0, 2, 2]], "is of category 999, which the dataset card does not have"),
        (1, [], "has a box and no mask"),
        (1, [[]], "has a box and no mask"),
        (1, None, "has a box and no mask"),
        (1, "x", "has a mask that is neither polygons nor run lengths"),
        (1, [["a"] * 6], "has a polygon that is no list of numbers"),
        (1, [[0, 0, 2, 0, 2, 2, 1]], "has a polygon of 7 coordinates, an odd number"),
        (1, [[1, 1, 2, 2, float("nan"), 3]], "has a polygon with coordinates far outside the picture"),
        (1, [[1, 1, 2, 2, 1e9, 3]], "has a polygon with coordinates far outside the picture"),
        (1, {"size": [2, 2], "counts": [1, 2, 900]}, "has run lengths that do not add up to 2x2 pixels"),
        (1, {"size": [3, 5], "counts": [15]}, "has run lengths for 5x3 pixels, the picture has 2x2"),
    ],
)
def test_annotation_that_cannot_be_painted_is_named_in_words_and_costs_one_picture(tmp_path, category, region, why):
    (sample,) = samples_of("coco-object", coco_of_one(tmp_path, region, category))
    assert sample.fault == f"'annotations/instances_val2017.json': annotation 77 {why}"


def test_picture_without_a_size_is_told_in_words(tmp_path):
    (sample,) = samples_of("coco-object", coco_of_one(tmp_path, [[0, 0, 2, 0, 2, 2]], height=None))
    assert sample.fault == "'annotations/instances_val2017.json' states no height and width of the picture"


def coco_annotations(root: Path) -> list[dict]:
    return json.loads((root / "annotations/instances_val2017.json").read_text())["annotations"]


def painted(annotations: list[dict], image_id: int, sample: Sample) -> np.ndarray:
    own = [a for a in annotations if a["image_id"] == image_id]
    with Image.open(io.BytesIO(sample.image)) as image:
        return paint(own, load_card("coco-object").label_of, image.height, image.width)


def test_polygons_without_area_are_left_out_with_a_remark(shared_data):
    samples = samples_of("coco-object", shared_data / "wild/coco-sliver")
    assert [sample.fault for sample in samples] == [None, None]
    left_out = {s.key: s.notes for s in samples}
    annotations = coco_annotations(shared_data / "wild/coco-sliver")
    for annotation in annotations:
        annotation["segmentation"] = [part for part in annotation["segmentation"] if len(part) >= 6]
    for sample in samples:
        assert (labels_of(sample) == painted(annotations, int(sample.key), sample)).all()
    assert all("polygons have under 3 points" in note for notes in left_out.values() for note in notes)
    assert left_out["000000485895"][0].startswith("annotation 597170: 1 of its polygons")


def test_annotation_of_slivers_alone_has_no_area(tmp_path):
    (sample,) = samples_of("coco-object", coco_of_one(tmp_path, [[1, 2], [0, 0, 1, 1]]))
    assert not labels_of(sample).any()
    assert sample.notes == ("annotation 77: 2 of its polygons have under 3 points, hence no area, and are left out",)


def test_box_without_a_mask_is_named(shared_data):
    faults = {s.key: s.fault for s in samples_of("coco-object", shared_data / "wild/coco-bboxonly")}
    assert faults.pop("000000404484") == "'annotations/instances_val2017.json': annotation 7981 has a box and no mask"
    assert faults == {"000000485895": None}


def test_names_in_different_folders_are_different_pictures(shared_data):
    root = shared_data / "wild/coco-sub"
    samples = samples_of("coco-object", root, image_labels="boxes")
    ids = {"cam0/frame_0000": 404484, "cam0/frame_0001": 11813, "cam1/frame_0000": 485895, "cam1/frame_0001": 20992}
    assert [sample.name for sample in samples] == sorted(ids)
    assert [sample.key for sample in samples] == [name.replace("/", "__") for name in sorted(ids)]
    annotations, card = coco_annotations(root), load_card("coco-object")
    for sample in samples:
        expected = painted(annotations, ids[sample.name], sample)
        assert (labels_of(sample) == expected).all()
        boxes = {card.label_of[a["category_id"]] for a in annotations if a["image_id"] == ids[sample.name]}
        assert set(sample.classes or ()) == boxes
        assert sample.image == (root / sample.source).read_bytes()


@pytest.mark.parametrize("name", ["val2017/1.jpg", "./1.jpg", r"val2017\1.jpg", "/data/coco/val2017/1.jpg"[1:]])
def test_pictures_named_from_further_up_are_found(tmp_path, name):
    (sample,) = samples_of("coco-object", coco_of_one(tmp_path, [[0, 0, 2, 0, 2, 2]], file_name=name))
    assert sample.source == "images/val2017/1.jpg"
    assert sample.fault is None
    assert sample.key == ("1" if name == "./1.jpg" else name[:-4].replace("/", "__").replace("\\", "__"))


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["a/1.jpg", "a/1.jpg"], "it lists two pictures with the file name 'a/1'"),
        (["1.jpg", "./1.jpg"], "it lists two pictures with the file name '1'"),
        (["1.jpg", None], "entry 2 of 'images' has no file_name"),
    ],
)
def test_what_is_wrong_with_a_coco_file_is_named(tmp_path, names, why):
    root = coco_of_one(tmp_path, [])
    file = root / "annotations/instances_val2017.json"
    values = json.loads(file.read_text())
    values["images"] = [{**values["images"][0], "id": i, "file_name": name} for i, name in enumerate(names)]
    file.write_text(json.dumps(values))
    with pytest.raises(DatasetError, match=f"is not a COCO annotation file: {why}"):
        samples_of("coco-object", root)


def test_pointer_of_git_lfs_is_named(tmp_path):
    root = coco_of_one(tmp_path, [])
    (root / "annotations/instances_val2017.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DatasetError, match="is not a COCO annotation file: git-lfs pointer"):
        samples_of("coco-object", root)
