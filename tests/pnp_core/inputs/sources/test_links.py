"""Links in a folder: what leaves it is passed over, whenever the link was put there."""

import io
import os
import threading
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from pnp_core.errors import SourceError
from pnp_core.inputs.sources import open_source
from pnp_core.inputs.sources.base import NotReadError
from pnp_core.inputs.sources.folder import GrowingFolder
from pnp_core.inputs.sources.links import LINKS, REFUSED, passed_over


def png(side: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, format="PNG")
    return buffer.getvalue()


INSIDE, OUTSIDE = png(4), png(9)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of two pictures beside one that holds other people's."""
    for name, data in (("in/a.png", INSIDE), ("in/sub/b.png", INSIDE), ("other/secret.png", OUTSIDE)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path / "in"


def images(source) -> dict[str, bytes]:
    return {sample.source: sample.image for sample in source.samples()}


def add_links(folder: Path) -> None:
    (folder / "file.png").symlink_to(folder.parent / "other/secret.png")
    (folder / "sub/relative.png").symlink_to("../../other/secret.png")
    (folder / "folder").symlink_to(folder.parent / "other")
    (folder / "broken.png").symlink_to("/nowhere/x.png")
    (folder / "prefix.png").symlink_to(f"{folder}-not/x.png")


def test_links_that_leave_the_folder_are_passed_over_and_counted(folder):
    add_links(folder)
    source = open_source(str(folder))
    assert images(source) == {"a.png": INSIDE, "sub/b.png": INSIDE}
    assert source.ignored == {LINKS: 5}
    (warning,) = passed_over(source.ignored)
    assert "5 links that leave the folder passed over" in warning
    assert "--follow-links" in warning
    ignored: Counter[str] = Counter()
    assert [file.name for file in GrowingFolder.of(str(folder)).files(None, ignored)] == ["a.png", "sub/b.png"]
    assert ignored[LINKS] == 5


def test_links_are_followed_when_asked_for(folder):
    add_links(folder)
    source = open_source(str(folder), follow_links=True)
    found = images(source)
    assert found["file.png"] == found["sub/relative.png"] == found["folder/secret.png"] == OUTSIDE
    assert not source.ignored[LINKS]
    assert source.digest() != open_source(str(folder)).digest()
    growing = GrowingFolder.of(str(folder), follow_links=True)
    assert growing.file("file.png").read() == OUTSIDE
    assert len(growing.files(None, Counter())) == len(found)


def test_links_that_stay_inside_are_followed_and_broken_ones_set_aside(folder):
    (folder / "c.png").symlink_to("a.png")
    (folder / "d.png").symlink_to(folder / "sub/b.png")
    (folder / "gone.png").symlink_to(folder / "deleted.png")
    (folder / "loop.png").symlink_to("loop.png")
    source = open_source(str(folder))
    faults = {sample.source: sample.fault for sample in source.samples()}
    assert [name for name, fault in faults.items() if fault is None] == ["a.png", "c.png", "d.png", "sub/b.png"]
    assert faults["gone.png"] == "cannot be read: No such file or directory"
    assert "cannot be read" in (faults["loop.png"] or "")
    assert source.ignored == {}


def test_folder_given_by_the_user_may_itself_be_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert images(open_source(str(tmp_path / "link"))) == {"a.png": INSIDE, "sub/b.png": INSIDE}
    assert GrowingFolder.of(str(tmp_path / "link")).file("a.png").read() == INSIDE


def test_link_to_the_run_folder_is_no_reason_for_a_warning(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (folder / "out").symlink_to(tmp_path / "out")
    assert open_source(str(folder), leave_out=str(folder / "out")).ignored == {}


def test_nothing_but_links_says_how_to_follow_them(folder, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links/a.png").symlink_to(folder / "a.png")
    with pytest.raises(SourceError, match="1 links that leave the folder: --follow-links"):
        open_source(str(tmp_path / "links"))
    assert images(open_source(str(tmp_path / "links"), follow_links=True)) == {"a.png": INSIDE}


@pytest.mark.parametrize("swapped", ["a.png", "sub"])
def test_link_put_in_place_after_the_listing_is_refused(folder, tmp_path, swapped):
    source, growing = open_source(str(folder)), GrowingFolder.of(str(folder))
    name = "a.png" if swapped == "a.png" else "sub/b.png"
    (tmp_path / "other/b.png").write_bytes(OUTSIDE)
    (folder / swapped).rename(tmp_path / "aside")
    (folder / swapped).symlink_to(tmp_path / ("other/secret.png" if swapped == "a.png" else "other"))
    for samples in (source.samples(), source.subset(2, 0)):
        found = {sample.source: sample for sample in samples}
        assert (found[name].image, found[name].fault) == (b"", REFUSED)
    with pytest.raises(NotReadError, match="link that leaves the folder"):
        growing.file(name).read()


@pytest.mark.parametrize("swapped", ["a.png", "sub"])
def test_no_swap_while_it_is_read_gives_what_is_outside(folder, tmp_path, swapped):
    """A link and what it replaces change places all the time; never is the file outside read."""
    (tmp_path / "other/b.png").write_bytes(OUTSIDE)
    target = tmp_path / ("other/secret.png" if swapped == "a.png" else "other")
    place, aside, link = folder / swapped, tmp_path / "aside", tmp_path / "link"
    link.symlink_to(target)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            place.rename(aside)
            link.rename(place)
            place.rename(link)
            aside.rename(place)

    file = GrowingFolder.of(str(folder)).file("a.png" if swapped == "a.png" else "sub/b.png")
    swapping = threading.Thread(target=swap)
    swapping.start()
    read = Counter()
    try:
        for _ in range(2000):
            try:
                read[file.read()] += 1
            except NotReadError:
                read[None] += 1
    finally:
        done.set()
        swapping.join()
    assert OUTSIDE not in read
    assert read[INSIDE]


def test_digest_follows_where_a_link_leads(folder):
    (folder / "c.png").write_bytes(INSIDE)
    for name in ("a.png", "c.png"):
        os.utime(folder / name, (1, 1))
    (folder / "link.png").symlink_to("a.png")
    first = open_source(str(folder)).digest()
    (folder / "link.png").unlink()
    (folder / "link.png").symlink_to("c.png")
    assert open_source(str(folder)).digest() != first
