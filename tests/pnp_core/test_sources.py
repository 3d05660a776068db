import io
import os
import re
import shutil
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pnp_core.errors import SourceError
from pnp_core.records import Sample
from pnp_core.shards import pack
from pnp_core.sources import open_source, safe_key


def png(size=(4, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, format="PNG")
    return buffer.getvalue()


def keys(source) -> list[str]:
    return [s.key for s in source.samples()]


def test_folder_is_read_recursively_in_name_order(tmp_path):
    for name in ("b.png", "a/z.JPG", "a/b/c.jpeg", "notes.txt", ".hidden.png", ".cache/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())
    source = open_source(str(tmp_path))
    assert keys(source) == ["a__b__c", "a__z", "b"]
    assert dict(source.ignored) == {".txt": 1}


def test_pictures_that_differ_in_the_ending_only_get_different_keys(tmp_path):
    for name in ("a.jpg", "a.png", "b.jpg"):
        (tmp_path / name).write_bytes(png())
    found = keys(open_source(str(tmp_path)))
    assert len(set(found)) == 3
    assert found[2] == "b"


def test_digest_follows_added_and_changed_files(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    first = open_source(str(tmp_path)).digest()
    assert open_source(str(tmp_path)).digest() == first
    (tmp_path / "a.png").write_bytes(png((5, 5)))
    second = open_source(str(tmp_path)).digest()
    (tmp_path / "b.png").write_bytes(png())
    assert len({first, second, open_source(str(tmp_path)).digest()}) == 3


def test_single_picture_is_a_source(tmp_path):
    (tmp_path / "one.png").write_bytes(png())
    assert keys(open_source(str(tmp_path / "one.png"))) == ["one"]


def test_tars_by_glob_and_by_braces(tmp_path):
    for number in (0, 1):
        (tmp_path / f"part-{number}.tar").write_bytes(pack([Sample("same", png(), "png", "s")]))
    for pattern in ("part-*.tar", "part-{0..1}.tar"):
        found = keys(open_source(str(tmp_path / pattern)))
        assert len(found) == 2
        assert len(set(found)) == 2


def test_picture_that_cannot_be_read_is_kept_with_its_fault(tmp_path):
    (tmp_path / "good.png").write_bytes(png())
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    source = open_source(str(tmp_path))
    assert source.digest()
    faults = {s.key: s.fault for s in source.samples()}
    assert faults == {"good": None, "link": "cannot be read: No such file or directory"}


def tar_file(path, *names: str) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(png())
            tar.addfile(info, io.BytesIO(png()))


def test_repeated_keys_in_tars_stay_apart(tmp_path):
    tar_file(tmp_path / "x/0.tar", "a.png", "b.png", "a.png")
    tar_file(tmp_path / "y/0.tar", "a.png", "notes.txt")
    found = list(open_source(str(tmp_path / "*/0.tar")).samples())
    assert len({s.key for s in found}) == len(found) == 5
    assert [s.fault for s in found] == [None, None, None, None, "the tar's record holds no picture"]


def test_every_picture_of_a_record_is_taken_and_label_maps_are_not(tmp_path):
    tar_file(tmp_path / "0.tar", "a.png", "a.png", "b.left.png", "b.right.png", "c.png", "c.seg.png", "plain")
    found = [s.source for s in open_source(str(tmp_path / "0.tar")).samples()]
    assert found == [f"0.tar!{name}" for name in ("a", "a", "b.left", "b.right", "c", "plain")]


@pytest.mark.parametrize("length", [900, 1024])
def test_truncated_tar_is_an_error_even_between_two_files(tmp_path, length):
    tar_file(tmp_path / "0.tar", "a.png", "b.png")
    (tmp_path / "0.tar").write_bytes((tmp_path / "0.tar").read_bytes()[:length])
    with pytest.raises(SourceError, match="cannot be read as a webdataset tar"):
        keys(open_source(str(tmp_path / "0.tar")))


def test_damaged_header_inside_a_tar_is_an_error(tmp_path):
    tar_file(tmp_path / "0.tar", "a.png", "b.png", "c.png")
    data = bytearray((tmp_path / "0.tar").read_bytes())
    data[1024:1100] = b"x" * 76
    (tmp_path / "0.tar").write_bytes(bytes(data))
    with pytest.raises(SourceError, match="damaged or cut short at byte 1024"):
        keys(open_source(str(tmp_path / "0.tar")))


def test_linked_folders_are_read_once_and_the_run_folder_never(tmp_path):
    for name in ("in/a.png", "elsewhere/b.png", "in/out/contact_sheet.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    assert keys(open_source(str(tmp_path / "in"), leave_out=str(tmp_path / "in/out"))) == ["a", "link__b"]


def test_name_in_an_old_encoding_becomes_printable(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(png())
    (sample,) = open_source(str(tmp_path)).samples()
    assert sample.source == "caf\\xe9.png"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "gone", "does not exist"),
        (lambda p: p, "no pictures in"),
        (lambda p: p / "gone.tar", r"gone\.tar' does not exist"),
        (lambda p: p / "text.txt", "is not a picture in a known format"),
        (lambda p: p / "text.tar", "is not a tar"),
    ],
)
def test_source_without_pictures_is_refused(tmp_path, make, message):
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "text.tar").write_text("hello")
    with pytest.raises(SourceError, match=message):
        open_source(str(make(tmp_path)))


def test_folder_of_tars_says_how_to_give_tars(tmp_path):
    (tmp_path / "x.tar").write_bytes(pack([Sample("k", png(), "png", "s")]))
    with pytest.raises(SourceError, match=r"for webdataset tars give '.*/\*\.tar'"):
        open_source(str(tmp_path))


@given(st.lists(st.text(min_size=1, max_size=150), min_size=2, max_size=6, unique=True))
def test_keys_are_safe_and_differ_for_different_names(names):
    found = [safe_key(name) for name in names]
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,120}", key) for key in found)
    assert len(set(found)) == len(names)


@pytest.mark.parametrize("pair", [("a/b", "a__b"), ("a_/b", "a/_b"), ("-x", "x"), ("a b", "a_b"), ("é", "_")])
def test_names_that_look_alike_after_cleaning_get_different_keys(pair):
    assert safe_key(pair[0]) != safe_key(pair[1])


def test_hostile_names_give_safe_keys(shared_data, tmp_path):
    shutil.copytree(shared_data / "hostile", tmp_path / "in")
    found = keys(open_source(str(tmp_path / "in")))
    assert len(set(found)) == len(found) >= 45
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", key) for key in found)
