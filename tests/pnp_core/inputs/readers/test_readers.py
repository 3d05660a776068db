"""Official layouts: real samples, and hand-made files for what the samples lack."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_core.data import Sample
from pnp_core.errors import DatasetError, UnknownNameError, UsageError
from pnp_core.inputs.cards import LabelMapFiles, load_card
from pnp_core.inputs.images import decode_label_map
from pnp_core.inputs.readers import open_dataset, resolve_card
from pnp_core.inputs.readers.base import GroundTruthError
from pnp_core.inputs.readers.instances import paint
from pnp_core.inputs.readers.label_maps import value_table

ROOTS = {"voc": "VOCdevkit", "con": "VOCdevkit", "coc": "coco", "ade": "ADEChallengeData2016"}


def samples_of(card: str, root: Path | str, split: str | None = None, **options) -> list[Sample]:
    opened = load_card(card)
    return list(open_dataset(resolve_card(opened, str(root)), str(root), split, **options).samples())


def labels_of(sample: Sample) -> np.ndarray:
    assert sample.fault is None
    assert sample.label_map is not None
    return decode_label_map(sample.label_map)


def raw(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.mark.parametrize(("card", "pictures"), [("voc21", 38), ("voc20", 38), ("context60", 3), ("context59", 3)])
def test_pascal_masks_are_the_files_own(shared_data, card, pictures):
    root = shared_data / "VOCdevkit"
    folder = "VOC2012/SegmentationClass" if card.startswith("voc") else "VOC2010/SegmentationClassContext"
    samples = samples_of(card, root, "val")
    assert len(samples) == pictures
    for sample in samples:
        expected = raw(root / folder / f"{sample.key}.png")
        if not load_card(card).background:
            expected = np.where(expected == 0, 255, expected)
        assert np.array_equal(labels_of(sample), expected)
        assert sample.classes == tuple(c for c in np.unique(expected) if c not in (0, 255))


def test_ade20k_zero_is_not_scored(shared_data):
    root = shared_data / "ADEChallengeData2016"
    samples = samples_of("ade20k", root)
    assert len(samples) == 69
    for sample in samples:
        expected = raw(root / f"annotations/validation/{sample.key}.png")
        assert np.array_equal(labels_of(sample), np.where(expected == 0, 255, expected))


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


def coco_stuff_root(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A COCO-Stuff copy of one picture: official ids 1 (person), 13 (stop sign), 157 (sky-other), void."""
    ids = np.array([[1, 13], [157, 256]])
    save(tmp_path / "images/val2017/000000000001.jpg", np.zeros((2, 2, 3)))
    save(tmp_path / "stuffthingmaps/val2017/000000000001.png", ids - 1)
    return tmp_path, ids


def test_coco_stuff_raw_ids_and_train_ids_give_the_same_labels(tmp_path):
    root, _ = coco_stuff_root(tmp_path)
    # 12 things before stop sign but the removed street sign; sky-other is 80 + 157 - 91.
    expected = [[1, 12], [146, 255]]
    card = load_card("coco-stuff")
    assert card.names[12 - 1] == "stop sign"
    assert card.names[146 - 1] == "sky-other"
    (sample,) = samples_of("coco-stuff", root)
    assert labels_of(sample).tolist() == expected
    save(root / "annotations/val2017/000000000001_labelTrainIds.png", np.array([[0, 11], [145, 255]]))
    (sample,) = samples_of("coco-stuff", root, ground_truth="train-ids")
    assert labels_of(sample).tolist() == expected


def test_coco_object_from_stuff_maps_makes_stuff_and_void_background(tmp_path):
    root, _ = coco_stuff_root(tmp_path)
    (sample,) = samples_of("coco-object", root, ground_truth="stuff-maps")
    assert labels_of(sample).tolist() == [[1, 12], [0, 0]]
    save(root / "annotations/val2017/000000000001_instanceTrainIds.png", np.array([[1, 12], [0, 0]]))
    (sample,) = samples_of("coco-object", root)
    assert labels_of(sample).tolist() == [[1, 12], [0, 0]]


def test_derived_maps_beside_raw_ones_are_no_pictures_of_their_own(tmp_path):
    root, ids = coco_stuff_root(tmp_path)
    save(root / "annotations/val2017/000000000001.png", ids - 1)
    save(root / "annotations/val2017/000000000001_labelTrainIds.png", np.zeros((2, 2)))
    assert len(samples_of("coco-stuff", root, ground_truth="stuff164k")) == 1


def test_value_table_by_hand():
    form = LabelMapFiles(kind="label-maps", name="m", path="{id}.png", offset=1)
    table = value_table(load_card("ade20k"), form)
    assert (table[0], table[149], table[150], table[255]) == (1, 150, -1, 255)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ("2007_000063_half_size.png", "ground truth is 250x187 pixels, the picture 500x375"),
        ("2007_000063_rgb_colours.png", "is a RGB picture: it must be a palette or grey PNG"),
        ("2007_000063_all_void.png", "no labelled pixel"),
    ],
)
def test_altered_masks_are_refused_with_the_reason(shared_data, tmp_path, mask, reason):
    root = tmp_path / "VOCdevkit"
    voc = root / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    shutil.copy(shared_data / "VOCdevkit/VOC2012/JPEGImages/2007_000063.jpg", voc / "JPEGImages")
    shutil.copy(shared_data / "hostile_masks" / mask, voc / "SegmentationClass/2007_000063.png")
    (voc / "ImageSets/Segmentation/val.txt").write_text("2007_000063\n")
    (sample,) = samples_of("voc21", root)
    assert sample.image == b""
    assert reason in (sample.fault or "")


def plain_folder(tmp_path: Path, masks: dict[str, np.ndarray]) -> Path:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    for name, values in masks.items():
        save(tmp_path / f"masks/{name}.png", values)
        save(tmp_path / f"images/{name}.jpg", np.zeros((*values.shape[:2], 3)))
    return tmp_path


def test_plain_folder_with_masks_is_a_dataset(tmp_path):
    root = plain_folder(tmp_path, {"a": np.array([[0, 1], [2, 255]]), "b": np.array([[2, 2], [0, 0]])})
    (root / "images/b.jpg").rename(root / "images/b.jpeg")
    a, b = samples_of("folder", root)
    assert labels_of(a).tolist() == [[0, 1], [2, 255]]
    assert (a.classes, b.classes, b.extension) == ((1, 2), (2,), "jpeg")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("cat\nCat\n", "class 'Cat' is given twice"),
        ("background\ncat\n", "'background' is label 0 already"),
        ("\n", "names no class"),
        ("\n".join(f"c{i}" for i in range(300)), "300 classes are too many"),
    ],
)
def test_class_names_that_cannot_be_used_are_refused_in_plain_words(tmp_path, names, message):
    root = plain_folder(tmp_path, {"a": np.ones((2, 2))})
    (root / "classes.txt").write_text(names)
    with pytest.raises(DatasetError, match=message):
        samples_of("folder", root)


def test_every_unusable_picture_comes_with_its_reason(tmp_path):
    masks = {name: np.array([[1, 1], [0, 0]]) for name in ("gone", "range", "text")}
    root = plain_folder(tmp_path, masks)
    (root / "images/gone.jpg").unlink()
    save(root / "masks/range.png", np.array([[1, 77], [3, 0]]))
    (root / "masks/text.png").write_text("no picture")
    faults = {s.key: s.fault or "" for s in samples_of("folder", root)}
    assert faults["gone"] == "picture 'images/gone.*' cannot be read: No such file or directory"
    assert "values that stand for no class: 3, 77" in faults["range"]
    assert "cannot be read" in faults["text"]


@pytest.mark.parametrize("orientation", [3, 6])
def test_ground_truth_of_a_picture_that_is_to_be_turned_is_not_trusted(tmp_path, orientation):
    root = plain_folder(tmp_path, {"a": np.ones((2, 4))})
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (4, 2)).save(root / "images/a.jpg", exif=exif)
    (sample,) = samples_of("folder", root)
    assert f"EXIF orientation {orientation}" in (sample.fault or "")


@pytest.mark.parametrize(
    ("picture_id", "reason"),
    [
        ("a\0b", "cannot be read"),
        ("x" * 400, "cannot be read"),
        # A real picture, but not one of the data folder.
        ("../../../outside", "leaves the data folder"),
    ],
)
def test_hostile_ids_in_a_split_list_cost_one_picture(tmp_path, picture_id, reason):
    root = plain_voc(tmp_path / "VOCdevkit", VOC_XML)
    shutil.copy(root / "VOC2012/JPEGImages/x.jpg", tmp_path / "outside.jpg")
    (root / "VOC2012/ImageSets/Segmentation/val.txt").write_text(f"{picture_id}\nx\n")
    card = load_card("voc21")
    dataset = open_dataset(card, str(root))
    assert dataset.digest(None)
    first, second = dataset.samples()
    assert reason in (first.fault or "")
    assert first.image == b""
    assert second.fault is None


def test_class_subset_keeps_pictures_and_pixels_of_its_classes(tmp_path):
    masks = {"a": np.array([[1, 2], [0, 255]]), "b": np.array([[1, 1], [0, 0]])}
    root = plain_folder(tmp_path, masks)
    (sample,) = samples_of("folder", root, only=(2,))
    assert sample.key == "a"
    assert labels_of(sample).tolist() == [[0, 2], [0, 255]]
    assert sample.classes == (2,)


def test_class_subset_without_background_leaves_other_classes_unscored(shared_data):
    root = shared_data / "VOCdevkit"
    sheep = load_card("voc20").labels(("sheep",))
    for sample in samples_of("voc20", root, only=sheep):
        assert set(np.unique(labels_of(sample))) == {17, 255}


VOC_XML = "<annotation><object><name>person</name></object><object><name>dog</name></object></annotation>"


def test_image_labels_from_boxes(shared_data, tmp_path):
    root = plain_voc(tmp_path, VOC_XML)
    (sample,) = samples_of("voc21", root, image_labels="boxes")
    assert sample.classes == (12, 15)
    real = samples_of("voc21", shared_data / "VOCdevkit", "trainval", image_labels="boxes")
    annotated = [s for s in real if s.fault is None]
    assert [s.key for s in annotated] == ["2007_000063"]
    assert annotated[0].classes == (9, 12)
    assert "no image-level labels: 'VOC2012/Annotations/2007_000032.xml' is missing" in (real[0].fault or "")


def plain_voc(tmp_path: Path, xml: str) -> Path:
    voc = tmp_path / "VOC2012"
    save(voc / "JPEGImages/x.jpg", np.zeros((2, 2, 3)))
    save(voc / "SegmentationClass/x.png", np.array([[15, 0], [0, 0]]))
    for folder in ("ImageSets/Segmentation", "Annotations"):
        (voc / folder).mkdir(parents=True)
    (voc / "ImageSets/Segmentation/val.txt").write_text("x\n")
    (voc / "Annotations/x.xml").write_text(xml)
    return tmp_path


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "declares entities; refused"),
        ("<annotation>", "is not XML"),
        ("<annotation><object><name>gnu</name></object></annotation>", "names unknown classes: gnu"),
    ],
)
def test_hostile_box_files_are_refused(tmp_path, xml, reason):
    (sample,) = samples_of("voc21", plain_voc(tmp_path, xml), image_labels="boxes")
    assert reason in (sample.fault or "")


def test_coco_image_labels_from_boxes_include_hidden_objects(shared_data):
    root = shared_data / "coco"
    annotations = json.loads((root / "annotations/instances_val2017.json").read_text())["annotations"]
    card = load_card("coco-object")
    for sample in samples_of("coco-object", root, image_labels="boxes"):
        own = {card.label_of[a["category_id"]] for a in annotations if a["image_id"] == int(sample.key)}
        assert set(sample.classes or ()) == own


def test_missing_parts_are_named_with_what_to_do(tmp_path, shared_data):
    with pytest.raises(DatasetError, match="does not exist; voc21 needs the folder VOCdevkit; get it from"):
        samples_of("voc21", tmp_path / "none")
    with pytest.raises(DatasetError, match=r"no ground truth of voc21: .*SegmentationClass.* --data must be"):
        samples_of("voc21", tmp_path)
    (tmp_path / "VOC2012/SegmentationClass").mkdir(parents=True)
    save(tmp_path / "VOC2012/SegmentationClass/a.png", np.zeros((2, 2)))
    with pytest.raises(DatasetError, match=r"val.txt' is missing"):
        samples_of("voc21", tmp_path)
    with pytest.raises(UsageError, match="say where with --data"):
        resolve_card(load_card("voc21"), None)
    with pytest.raises(UsageError, match="drawn, not read; leave out --data"):
        resolve_card(load_card("scenes"), str(tmp_path))
    with pytest.raises(UnknownNameError, match="unknown split of dataset ade20k 'test'"):
        samples_of("ade20k", shared_data / "ADEChallengeData2016", "test")
    with pytest.raises(UnknownNameError, match="unknown ground truth"):
        samples_of("voc21", shared_data / "VOCdevkit", ground_truth="boxes")
    with pytest.raises(UsageError, match="dataset ade20k has no boxes"):
        samples_of("ade20k", shared_data / "ADEChallengeData2016", image_labels="boxes")


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
    with Image.open(io.BytesIO(sample.image)) as picture:
        return paint(own, load_card("coco-object").label_of, picture.height, picture.width)


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


def test_digest_follows_the_files_and_the_subset(tmp_path):
    root = plain_folder(tmp_path, {"a": np.ones((2, 2)), "b": np.ones((2, 2))})
    card = resolve_card(load_card("folder"), str(root))

    def digest(limit=None, only=None) -> str:
        return open_dataset(card, str(root), only=only).digest(limit)

    first = digest()
    assert digest() == first
    assert len({first, digest(1), digest(only=(1,))}) == 3
    boxes = plain_voc(tmp_path / "voc", VOC_XML)
    voc = load_card("voc21")
    before = open_dataset(voc, str(boxes), image_labels="boxes").digest(None)
    (boxes / "VOC2012/Annotations/x.xml").write_text(VOC_XML + " ")
    assert open_dataset(voc, str(boxes), image_labels="boxes").digest(None) != before
    one = digest(1)
    save(root / "masks/b.png", np.full((2, 2), 2))
    assert digest() != first
    assert digest(1) == one


def test_scenes_keep_their_classes_in_a_subset():
    card = load_card("scenes")
    dataset = open_dataset(card, None, "test", only=(1, 2))
    samples = [sample for _, sample in zip(range(5), dataset.samples(), strict=False)]
    assert len(dataset) == 200
    for sample in samples:
        assert set(np.unique(labels_of(sample))) <= {0, 1, 2}
        assert set(sample.classes or ()) <= {1, 2}
        Image.open(io.BytesIO(sample.image)).verify()


def test_names_with_spaces_are_pictures_of_their_own(tmp_path):
    root = plain_folder(tmp_path, {f"my {n}": np.full((4, 4), n, np.uint8) for n in (0, 1)})
    assert [labels_of(sample).max() for sample in samples_of("folder", root)] == [0, 1]


def test_a_picture_of_absurd_size_is_named_and_not_painted():
    with pytest.raises(GroundTruthError, match="10000000x1000000 pixels"):
        paint([], {}, 1_000_000, 10_000_000)
