"""Anybody's tars: damage costs what is damaged, names and content are never trusted."""

import io
import pickle
import tarfile

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pnp_core.data import Sample
from pnp_core.errors import SourceError
from pnp_core.inputs.sources import open_source
from pnp_core.inputs.sources.tars import read_images
from pnp_core.storage.shards import pack

DAMAGED = "the tar is damaged from byte {} to {}: what was there is lost"
UNENDED = "the tar may be cut short at byte {}: it has no end mark"


def png(size=(4, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, format="PNG")
    return buffer.getvalue()


def samples(path) -> list[Sample]:
    return list(open_source(str(path)).samples())


def keys(source) -> list[str]:
    return [s.key for s in source.samples()]


def test_tars_by_glob_and_by_braces(tmp_path):
    for number in (0, 1):
        (tmp_path / f"part-{number}.tar").write_bytes(pack([Sample("same", png(), "png", "s")]))
    for pattern in ("part-*.tar", "part-{0..1}.tar"):
        found = keys(open_source(str(tmp_path / pattern)))
        assert len(found) == 2
        assert len(set(found)) == 2


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
    names = ("a.png", "a.png", "b.left.png", "b.right.png", "c.png", "plain")
    assert found == [f"0.tar!{name}" for name in names]
    assert len(set(keys(open_source(str(tmp_path / "0.tar"))))) == 6


def faults(path) -> dict[str, str | None]:
    return {s.source: s.fault for s in samples(path)}


def test_damaged_header_costs_one_file_and_says_so(tmp_path):
    tar_file(tmp_path / "0.tar", "a.png", "b.png", "c.png")
    data = bytearray((tmp_path / "0.tar").read_bytes())
    data[1024:1100] = b"x" * 76
    (tmp_path / "0.tar").write_bytes(bytes(data))
    lost = DAMAGED.format(1024, 2048)
    assert faults(tmp_path / "0.tar") == {"0.tar!a.png": None, "0.tar!damage-1024": lost, "0.tar!c.png": None}


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (900, {"0.tar!a.png": None, "0.tar!damage-900": UNENDED.format(900)}),  # in the padding after a.png
        (520, {"0.tar!a.png": "the tar is cut short in this file"}),
        (1024, {"0.tar!a.png": None, "0.tar!damage-1024": UNENDED.format(1024)}),
        (1200, {"0.tar!a.png": None, "0.tar!damage-1024": DAMAGED.format(1024, 1200)}),
        (1540, {"0.tar!a.png": None, "0.tar!b.png": "the tar is cut short in this file"}),
    ],
)
def test_tar_cut_short_keeps_what_is_whole(tmp_path, length, expected):
    tar_file(tmp_path / "0.tar", "a.png", "b.png")
    (tmp_path / "0.tar").write_bytes((tmp_path / "0.tar").read_bytes()[:length])
    assert faults(tmp_path / "0.tar") == expected


def test_damaged_extended_header_costs_its_file_only(tmp_path):
    names = ["a" * 120 + ".png", "b" * 120 + ".png", "c.png"]
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(png())
            tar.addfile(info, io.BytesIO(png()))
    data = bytearray((tmp_path / "0.tar").read_bytes())
    data[512:520] = b"999999 x"  # the first record of a pax header: a length that leads nowhere
    (tmp_path / "0.tar").write_bytes(bytes(data))
    found = samples(tmp_path / "0.tar")
    whole = [s.source for s in found if s.fault is None]
    assert "0.tar!c.png" in whole
    assert f"0.tar!{names[1]}" in whole
    assert len(whole) + sum(s.fault is not None for s in found) == len(found) >= 3


@given(st.integers(0, 5000), st.binary(min_size=1, max_size=700))
def test_no_damage_crashes_or_loses_files_elsewhere(place, junk):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("a.png", "b.png", "c.png", "d.png"):
            info = tarfile.TarInfo(name)
            info.size = len(png())
            tar.addfile(info, io.BytesIO(png()))
    data = bytearray(buffer.getvalue()[: 4 * 1024 + 1024])
    place = min(place, len(data) - len(junk))
    data[place : place + len(junk)] = junk
    members = {found.member: found for found in read_images(io.BytesIO(bytes(data)))}
    for i, name in enumerate(("a.png", "b.png", "c.png", "d.png")):
        start, end = i * 1024, (i + 1) * 1024
        if place >= end or place + len(junk) <= start:
            assert members[name].content == png(), f"{name} was not touched"


def test_padding_and_appended_archives_are_no_damage(tmp_path):
    tar_file(tmp_path / "0.tar", "a.png")
    one = (tmp_path / "0.tar").read_bytes()
    tar_file(tmp_path / "0.tar", "b.png")
    (tmp_path / "0.tar").write_bytes(one + (tmp_path / "0.tar").read_bytes() + bytes(20480))
    assert faults(tmp_path / "0.tar") == {"0.tar!a.png": None, "0.tar!b.png": None}


def test_names_that_leave_the_folder_are_refused_and_nothing_is_unpacked(tmp_path):
    (tmp_path / "in").mkdir()
    tar_file(tmp_path / "in/0.tar", "../evil.png", "/abs.png", "a/../../b.png", "good.png")
    before = sorted(tmp_path.rglob("*"))
    found = faults(tmp_path / "in/0.tar")
    refused = "refused: its name in the tar leaves its folder"
    assert found == {
        "0.tar!../evil.png": refused,
        "0.tar!/abs.png": refused,
        "0.tar!a/../../b.png": refused,
        "0.tar!good.png": None,
    }
    assert sorted(tmp_path.rglob("*")) == before
    assert all("/" not in s.key and "." not in s.key for s in samples(tmp_path / "in/0.tar"))


def test_links_and_devices_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, kind in (("link.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE), ("null.png", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert set(faults(tmp_path / "0.tar").values()) == {"is a link or device in the tar, not a file"}


class Trap:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_pickles_are_never_loaded(tmp_path):
    evil = pickle.dumps(Trap(str(tmp_path / "sprung")))
    pickle.loads(evil).close()
    (tmp_path / "sprung").unlink()  # the trap works
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, content in (("a.jpg", b"img"), ("a.pyd", evil), ("a.pickle", evil), ("a.pth", evil)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    (sample,) = samples(tmp_path / "0.tar")
    assert (sample.key, sample.extension, sample.image, sample.fault) == ("a", "jpg", b"img", None)
    assert not (tmp_path / "sprung").exists()


def test_record_without_picture_is_kept_to_be_quarantined(tmp_path):
    tar_file(tmp_path / "0.tar", "a.txt", "b.left.JPG", ".DS_Store", "._c.jpg")
    found = samples(tmp_path / "0.tar")
    assert [(s.source, s.extension, s.fault) for s in found] == [
        ("0.tar!b.left.JPG", "jpg", None),
        ("0.tar!._c.jpg", "jpg", None),
        ("0.tar!a", "none", "the tar's record holds no picture"),
    ]


def test_labels_behind_their_pictures_are_no_lost_pictures(shared_data):
    found = faults(shared_data / "wild/tar-labels-after/labels_after.tar")
    assert found == {f"labels_after.tar!000{i}.jpg": None for i in range(3)}


@pytest.mark.parametrize(
    "names",
    [
        ("a.json", "b.json", "a.png", "b.png"),
        ("images/a.png", "images/b.png", "labels/a.json", "labels/b.txt"),
        ("a.json", "a.png", "a.seg.png", "b.png", "a.txt", "b.seg.png"),
    ],
)
def test_labels_anywhere_in_a_tar_are_no_lost_pictures(tmp_path, names):
    tar_file(tmp_path / "0.tar", *names)
    images = [name for name in names if name.endswith(".png") and ".seg." not in name]
    assert faults(tmp_path / "0.tar") == {f"0.tar!{name}": None for name in images}


def test_labels_whose_picture_is_missing_are_told(tmp_path):
    tar_file(tmp_path / "0.tar", "x/a.png", "x/b.json", "y/a.json", "y/c.json")
    lost = "the tar's record holds no picture"
    assert faults(tmp_path / "0.tar") == {"0.tar!x/a.png": None, "0.tar!x/b": lost, "0.tar!y/c": lost}


def test_tars_on_another_file_system(tmp_path):
    tar_file(tmp_path / "0.tar", "a.png", "b.png")
    fsspec.filesystem("memory").pipe_file("/tars/0.tar", (tmp_path / "0.tar").read_bytes())
    assert keys(open_source("memory://tars/*.tar")) == ["a", "b"]


def raw_header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header with a checksum that fits, whatever it says."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = bytes([255 if size < 0 else 128]) + (size % 256**11).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def test_global_headers_are_no_damage(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "git"}) as tar:
        tar.addfile(tarfile.TarInfo("a.png"))
    assert faults(tmp_path / "0.tar") == {"0.tar!a.png": None}


def test_damage_inside_a_record_does_not_split_it(tmp_path):
    tar_file(tmp_path / "0.tar", "a.png", "a.json", "a.txt", "b.png")
    data = bytearray((tmp_path / "0.tar").read_bytes())
    data[1024:1100] = b"x" * 76
    (tmp_path / "0.tar").write_bytes(bytes(data))
    found = [(s.key, s.fault) for s in samples(tmp_path / "0.tar")]
    assert found == [("a", None), ("damage-1024", DAMAGED.format(1024, 2048)), ("b", None)]


def test_wrong_sizes_hide_nothing_that_follows(tmp_path):
    endless, backwards = raw_header("a.png", 10**9), raw_header("b.png", -1024)
    (tmp_path / "0.tar").write_bytes(
        endless + backwards + raw_header("c.png", len(png())) + padded(png()) + bytes(1024)
    )
    found = {s.key: s.fault for s in samples(tmp_path / "0.tar")}
    assert found["c"] is None
    assert found["a"] == "1000000000 bytes are over the limit of 536870912 for one picture"


def test_extension_header_of_half_a_gigabyte_is_not_read(tmp_path):
    with (tmp_path / "0.tar").open("wb") as file:
        file.write(raw_header("a.png", len(png())) + padded(png()) + raw_header("x", 600 << 20, tarfile.XHDTYPE))
        file.truncate(2 << 20)
    found = samples(tmp_path / "0.tar")
    assert [s.key for s in found if s.fault is None] == ["a"]
    assert any("is damaged from byte 1024" in (s.fault or "") for s in found)


def test_tars_whose_names_run_together_have_different_keys(tmp_path):
    tar_file(tmp_path / "x.tar", "y/a.png")
    tar_file(tmp_path / "x/y.tar", "a.png")
    found = keys(open_source(f"{tmp_path}/{{x,x/y}}.tar"))
    assert len(set(found)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is not a tar"), (b"\x1f\x8b\x08", "compressed"), (bytes(600) + b"x", "is not a tar")],
)
def test_what_is_no_tar_is_refused(tmp_path, content, message):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        open_source(str(tmp_path / "x.tar"))


def test_odd_names_are_literal_before_they_are_patterns(tmp_path):
    for name in ("a{b.tar", "c{1,2}.tar", "d[1].tar"):
        tar_file(tmp_path / name, "a.png")
        assert keys(open_source(str(tmp_path / name))) == ["a"]
    with pytest.raises(SourceError, match="cannot be understood"):
        open_source(str(tmp_path / "gone{1.tar"))


def test_junk_among_tars_costs_itself_only_and_alone_is_refused(tmp_path):
    tar_file(tmp_path / "a.tar", "a.png")
    (tmp_path / "b.tar").write_bytes(bytes(range(256)) * 20)
    found = faults(tmp_path / "*.tar")
    assert found["a.tar!a.png"] is None
    assert found["b.tar!damage-0"] == DAMAGED.format(0, 5120)
    with pytest.raises(SourceError, match="is not a tar"):
        open_source(str(tmp_path / "b.tar"))


def test_member_that_claims_an_impossible_size_hides_nothing(tmp_path):
    tar_file(tmp_path / "0.tar", "a.png", "b.png")
    data = bytearray((tmp_path / "0.tar").read_bytes())
    data[124:136] = b"\x80" + b"\x7f" * 11  # the size in base 256: 2^87
    checksum = sum(data[:148]) + 8 * 32 + sum(data[156:512])
    data[148:156] = f"{checksum:06o}\0 ".encode()
    (tmp_path / "0.tar").write_bytes(bytes(data))
    found = faults(tmp_path / "0.tar")
    assert found["0.tar!b.png"] is None
    assert found["0.tar!a.png"] is not None


def test_side_cars_of_pictures_in_a_tar_are_no_pictures(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, content in (
            ("a.jpg", png()),
            ("a.jpg.xmp", b"<x:xmpmeta/>"),
            ("b.jpg.1", png()),
            ("c.jpg.md5", b"00ff\n"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert [(s.source.rsplit("!", 1)[-1], s.fault) for s in samples(tmp_path / "x.tar") if s.image] == [
        ("a.jpg", None),
        ("b.jpg.1", None),
    ]
    assert not [s for s in samples(tmp_path / "x.tar") if s.source.endswith("xmp")]
