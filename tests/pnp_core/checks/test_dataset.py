"""`check` of datasets whose annotation files name folders."""

import json
import shutil

import pytest

from pnp_core.checks.dataset import check_dataset


@pytest.fixture
def coco(shared_data, tmp_path):
    """Four pictures of a real COCO folder, and a way to rename the pictures in its annotation file."""
    root, file = tmp_path / "coco", "annotations/instances_val2017.json"
    values = json.loads((shared_data / "coco" / file).read_text())
    some = values["images"][:4]
    (root / "images/val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    names = [image["file_name"] for image in some]
    for name in names:
        shutil.copy(shared_data / "coco/images/val2017" / name, root / "images/val2017")

    def rename(*new: str):
        renamed = [{**image, "file_name": name} for image, name in zip(some, new, strict=True)]
        (root / file).write_text(json.dumps({**values, "images": renamed}))
        return root

    return names, rename


def test_names_from_further_up_are_those_that_are_there(coco):
    names, rename = coco
    plain = check_dataset("coco-object", str(rename(*names)), None, None)
    above = check_dataset("coco-object", str(rename(*(f"val2017/{name}" for name in names))), None, None)
    assert above == plain
    assert plain.usable == len(names)
    assert not any("without ground truth" in problem for problem in plain.problems)


def test_names_in_folders_that_are_there_are_found_and_what_lies_beside_them_is_missed(coco):
    names, rename = coco
    root = rename(f"cam/{names[0]}", *names[1:])
    images = root / "images/val2017"
    (images / "cam").mkdir()
    shutil.copy(images / names[0], images / "cam" / names[0])
    report = check_dataset("coco-object", str(root), None, None)
    assert report.usable == len(names)
    assert f"pictures without ground truth: 1, such as {names[0].removesuffix('.jpg')}" in report.problems
