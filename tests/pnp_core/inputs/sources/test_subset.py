"""Some pictures of a corpus, drawn at random."""

import io
import tarfile
from collections import Counter

import pytest
from PIL import Image

from pnp_core.inputs.sources import open_source


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (2, 2), value).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(params=["folder", "list", "tar"])
def source(request, tmp_path):
    images = {f"{i:02d}.png": png(i) for i in range(20)}
    for name, data in images.items():
        (tmp_path / name).write_bytes(data)
    if request.param == "folder":
        return open_source(str(tmp_path))
    if request.param == "list":
        (tmp_path / "list.txt").write_text("\n".join(images))
        return open_source(str(tmp_path / "list.txt"))
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for name in images:
            tar.add(tmp_path / name, name)
    return open_source(str(tmp_path / "all.tar"))


def test_subset_has_its_number_of_pictures_in_order_and_follows_the_seed(source):
    first, again, other = ([s.image for s in source.subset(5, seed)] for seed in (0, 0, 1))
    everything = [s.image for s in source.samples()]
    assert len(first) == len(set(first)) == 5
    assert first == again != other
    assert [everything.index(image) for image in first] == sorted(everything.index(image) for image in first)


def test_subset_of_few_pictures_is_all_of_them(source):
    assert [s.image for s in source.subset(50, 0)] == [s.image for s in source.samples()]


def test_every_picture_is_drawn_about_equally_often(source):
    drawn = Counter(s.key for seed in range(60) for s in source.subset(5, seed))
    assert len(drawn) == 20
    assert max(drawn.values()) < 32, "15 each are expected"
