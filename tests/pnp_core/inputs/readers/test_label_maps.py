"""Label maps of the official layouts: real samples, and hand-made files for what the samples lack."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_core.inputs.cards import LabelMapFiles, load_card
from pnp_core.inputs.readers.label_maps import value_table
from tests.pnp_core.inputs.readers.copies import labels_of, samples_of, save


def raw(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


@pytest.mark.parametrize(("card", "images"), [("voc21", 38), ("voc20", 38), ("context60", 3), ("context59", 3)])
def test_pascal_masks_are_the_files_own(shared_data, card, images):
    root = shared_data / "VOCdevkit"
    folder = "VOC2012/SegmentationClass" if card.startswith("voc") else "VOC2010/SegmentationClassContext"
    samples = samples_of(card, root, "val")
    assert len(samples) == images
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
