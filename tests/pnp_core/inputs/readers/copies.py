"""Copies of datasets made by hand, and what is read from them."""

from pathlib import Path

import numpy as np
from PIL import Image

from pnp_core.data import Sample
from pnp_core.inputs.cards import load_card
from pnp_core.inputs.images import decode_label_map
from pnp_core.inputs.readers import open_dataset, resolve_card


def samples_of(card: str, root: Path | str, split: str | None = None, **options) -> list[Sample]:
    opened = load_card(card)
    return list(open_dataset(resolve_card(opened, str(root)), str(root), split, **options).samples())


def labels_of(sample: Sample) -> np.ndarray:
    assert sample.fault is None
    assert sample.label_map is not None
    return decode_label_map(sample.label_map)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def plain_folder(tmp_path: Path, masks: dict[str, np.ndarray]) -> Path:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    for name, values in masks.items():
        save(tmp_path / f"masks/{name}.png", values)
        save(tmp_path / f"images/{name}.jpg", np.zeros((*values.shape[:2], 3)))
    return tmp_path


VOC_XML = "<annotation><object><name>person</name></object><object><name>dog</name></object></annotation>"


def plain_voc(tmp_path: Path, xml: str) -> Path:
    voc = tmp_path / "VOC2012"
    save(voc / "JPEGImages/x.jpg", np.zeros((2, 2, 3)))
    save(voc / "SegmentationClass/x.png", np.array([[15, 0], [0, 0]]))
    for folder in ("ImageSets/Segmentation", "Annotations"):
        (voc / folder).mkdir(parents=True)
    (voc / "ImageSets/Segmentation/val.txt").write_text("x\n")
    (voc / "Annotations/x.xml").write_text(xml)
    return tmp_path
