"""Image-level labels from detection annotations."""

import json

import pytest

from pnp_core.inputs.cards import load_card
from tests.pnp_core.inputs.readers.copies import VOC_XML, plain_voc, samples_of


def test_image_labels_from_boxes(shared_data, tmp_path):
    root = plain_voc(tmp_path, VOC_XML)
    (sample,) = samples_of("voc21", root, image_labels="boxes")
    assert sample.classes == (12, 15)
    real = samples_of("voc21", shared_data / "VOCdevkit", "trainval", image_labels="boxes")
    annotated = [s for s in real if s.fault is None]
    assert [s.key for s in annotated] == ["2007_000063"]
    assert annotated[0].classes == (9, 12)
    assert "no image-level labels: 'VOC2012/Annotations/2007_000032.xml' is missing" in (real[0].fault or "")


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
