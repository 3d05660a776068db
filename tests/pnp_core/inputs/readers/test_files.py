"""Datasets on disk: which pictures they have, and what is wrong with one."""

import shutil

import numpy as np
import pytest
from PIL import Image

from pnp_core.errors import DatasetError, UnknownNameError, UsageError
from pnp_core.inputs.cards import load_card
from pnp_core.inputs.readers import open_dataset, resolve_card
from tests.pnp_core.inputs.readers.copies import VOC_XML, labels_of, plain_folder, plain_voc, samples_of, save


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
        ("\n".join(f"c{i}" for i in range(65_535)), "65535 classes are too many"),
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
    ("image_id", "reason"),
    [
        ("a\0b", "cannot be read"),
        ("x" * 400, "cannot be read"),
        # A real picture, but not one of the data folder.
        ("../../../outside", "leaves the data folder"),
    ],
)
def test_hostile_ids_in_a_split_list_cost_one_picture(tmp_path, image_id, reason):
    root = plain_voc(tmp_path / "VOCdevkit", VOC_XML)
    shutil.copy(root / "VOC2012/JPEGImages/x.jpg", tmp_path / "outside.jpg")
    (root / "VOC2012/ImageSets/Segmentation/val.txt").write_text(f"{image_id}\nx\n")
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


def test_names_with_spaces_are_pictures_of_their_own(tmp_path):
    root = plain_folder(tmp_path, {f"my {n}": np.full((4, 4), n, np.uint8) for n in (0, 1)})
    assert [labels_of(sample).max() for sample in samples_of("folder", root)] == [0, 1]


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


def test_masks_are_put_to_the_chosen_pictures_later(tmp_path):
    root = plain_folder(tmp_path, {"a": np.ones((2, 2)), "b": np.full((2, 2), 2)})
    card = resolve_card(load_card("folder"), str(root))
    (bare,) = (dataset := open_dataset(card, str(root), truth=False).restricted({"b"})).samples()
    (sample,) = dataset.with_truth().samples()
    assert bare.label_map is None
    assert labels_of(sample).tolist() == [[2, 2], [2, 2]]
    with pytest.raises(UnknownNameError, match="unknown ground truth"):
        dataset.with_truth("boxes")


def test_pictures_beside_those_of_the_split_are_named(tmp_path):
    root = plain_folder(tmp_path, {"a": np.ones((2, 2)), "b": np.ones((2, 2)), "c": np.ones((2, 2))})
    (root / "masks/b.png").unlink()
    assert open_dataset(resolve_card(load_card("folder"), str(root)), str(root)).unlisted() == ["b"]
