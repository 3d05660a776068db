"""Text files of paths and URLs."""

import base64
import codecs
import io

import fsspec
import pytest
from PIL import Image

from pnp_core.data import Sample
from pnp_core.errors import SourceError
from pnp_core.inputs.sources import open_source
from pnp_core.inputs.sources._pointed import Pointed
from pnp_core.inputs.sources.base import FileRef


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_every_line_is_one_picture_wherever_it_lies(tmp_path):
    for name in ("a.png", "-dash.png", "# b c.png", "sub/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png())
    fsspec.filesystem("memory").pipe_file("/bucket/e.png", png())
    lines = ["a.png", "", "-dash.png\r", "# b c.png", f"{tmp_path}/sub/d.png", "memory://bucket/e.png"]
    lines += ["a.png", "gone.png", "gopher://host/f.png", "猫.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    samples = list(open_source(str(tmp_path / "list.txt")).samples())
    assert [s.source for s in samples] == [line.strip() for line in lines if line.strip()]
    assert len({s.key for s in samples}) == len(samples) == 9
    assert [s.fault is None for s in samples] == [True] * 6 + [False] * 3
    assert all(s.image == png() for s in samples[:6])
    assert "No such file" in (samples[6].fault or "")
    assert "cannot open 'gopher://host/f.png'" in (samples[7].fault or "")


def test_list_on_another_file_system_has_its_pictures_beside_it():
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/lists/all.lst", b"x/a.png\nmemory://lists/x/a.png\n")
    fs.pipe_file("/lists/x/a.png", png())
    samples = list(open_source("memory://lists/all.lst").samples())
    assert [s.fault for s in samples] == [None, None]
    assert samples[0].key != samples[1].key


def test_digest_follows_the_pictures(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "list.txt").write_text("a.png\n")
    first = open_source(str(tmp_path / "list.txt")).digest()
    (tmp_path / "a.png").write_bytes(png() + b"x")
    assert open_source(str(tmp_path / "list.txt")).digest() != first


@pytest.mark.parametrize(("content", "message"), [(b"\n \n", "is empty"), (b"caf\xe9.png", "is not UTF-8 text")])
def test_list_that_is_none_is_refused(tmp_path, content, message):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        open_source(str(tmp_path / "list.txt"))


def test_list_of_windows_powershell_is_read_by_its_byte_order_mark(shared_data):
    samples = list(open_source(str(shared_data / "wild/utf16-list/utf16.txt")).samples())
    assert [(s.name or s.source, s.fault) for s in samples] == [("images/plain.jpg", None), ("images/ü.jpg", None)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-be", "utf-32"])
def test_lists_are_read_in_every_encoding_that_has_a_mark(tmp_path, encoding):
    (tmp_path / "猫.png").write_bytes(png())
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    (tmp_path / "list.txt").write_bytes(mark + "猫.png\r\n".encode(encoding))
    (sample,) = open_source(str(tmp_path / "list.txt")).samples()
    assert sample.fault is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a dog on a lawn\ntwo cats\n", "holds text such as 'a dog on a lawn'; it needs one path or URL per line"),
        ("val_1.JPEG 65\nval_2.JPEG 970\n", "holds text such as 'val_1.JPEG 65'"),
        ('{"file_name": "a.png"}\n', "holds JSON such as"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a git-lfs pointer, not the file itself"),
    ],
)
def test_text_that_names_no_files_is_refused_in_one_line(tmp_path, text, what):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(SourceError, match=what):
        open_source(str(tmp_path / "list.txt"))


def test_lines_that_are_pictures_themselves_are_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    text = base64.b64encode(png()).decode()
    (tmp_path / "list.txt").write_text(f"a.png\ndata:image/png;base64,{text}\n{text}\ndata:image/png;base64,%\n")
    source = open_source(str(tmp_path / "list.txt"))
    assert source.digest()
    samples = list(source.samples())
    assert [sample.image == png() for sample in samples] == [True, True, True, False]
    assert [sample.key for sample in samples] == ["a", "line__2", "line__3", "line__4"]
    assert samples[3].fault == "its data URI cannot be decoded: it is no base64"


def test_one_bad_line_never_stops_the_others(tmp_path):
    for name in ("~odd.png", "a::b.png"):
        (tmp_path / name).write_bytes(png())
    bad = ["zip://x.png::/nowhere.zip", "simplecache::nope://x", "http://[bad/x.png", "a\0b.png", "."]
    lines = ["~odd.png", *bad, f"{tmp_path}/a::b.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    source = open_source(str(tmp_path / "list.txt"))
    assert source.digest()
    assert [s.fault is None for s in source.samples()] == [True, *[False] * len(bad), True]


def test_names_of_screenshots_with_unusual_spaces_are_names(tmp_path):
    names = ["Screenshot 1.23.45\u202fPM.png", "\u732b\u3000\u72ac.png"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list.txt").write_text("\n".join(names), encoding="utf-8")
    assert [s.image for s in open_source(str(tmp_path / "list.txt")).samples()] == [b"x", b"x"]


def test_lines_of_a_list_elsewhere_are_asked_for_one_by_one():
    fs = fsspec.filesystem("dir", path="/nowhere", fs=fsspec.filesystem("file"))
    pointed = [Pointed(line, FileRef(fs, "/far"), Sample(line, b"", "png", line)) for line in ("a.png", "b.png")]
    assert len({one.url for one in pointed}) == 2


def test_line_is_told_by_its_number_in_the_file(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    bad = "data:image/png;base64,%"
    (tmp_path / "list.txt").write_text(f"a.png\n\nleft/x.png\n \n{bad}\nleft/y.png\n{bad}!\n")
    source = open_source(str(tmp_path / "list.txt"), exclude=("left",))
    keys = {"a.png": "a", "line 5": "line__5", "line 7": "line__7"}
    assert {sample.source: sample.key for sample in source.samples()} == keys
    drawn = {sample.source for seed in range(5) for sample in source.subset(1, seed)}
    assert drawn <= set(keys)
    assert len(drawn) > 1
