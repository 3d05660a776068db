"""Folders and single pictures, local and on other file systems."""

import io
import itertools
import os
import tracemalloc

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from pnp_core.data import Sample
from pnp_core.errors import SourceError
from pnp_core.inputs.sources import MAX_BYTES, open_source
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import pack, write_shards


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
    assert keys(source) == ["_hidden-1692419006a88aab", "a__b__c", "a__z", "b"]
    assert dict(source.ignored) == {".txt": 1, "hidden folder": 1}


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


def test_picture_that_cannot_be_read_is_kept_with_its_fault(tmp_path):
    (tmp_path / "good.png").write_bytes(png())
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    source = open_source(str(tmp_path))
    assert source.digest()
    faults = {s.key: s.fault for s in source.samples()}
    assert faults == {"good": None, "link": "cannot be read: No such file or directory"}


def test_linked_folders_are_read_once_and_the_run_folder_never(tmp_path):
    for name in ("in/a.png", "elsewhere/b.png", "in/out/contact_sheet.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    followed = open_source(str(tmp_path / "in"), leave_out=str(tmp_path / "in/out"), follow_links=True)
    assert keys(followed) == ["a", "link__b"]


def test_name_in_an_old_encoding_becomes_printable(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(png())
    (sample,) = open_source(str(tmp_path)).samples()
    assert sample.source == "caf\\xe9.png"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "gone", "does not exist"),
        (lambda p: p / "empty", "no pictures in"),
        (lambda p: p / "gone.tar", r"gone\.tar' does not exist"),
        (lambda p: p / "text.jpg", "not a picture in a known format"),
        (lambda p: p / "x.tar.gz", "is packed; unpack it"),
        (lambda p: p / "text.tar", "is not a tar"),
    ],
)
def test_source_without_pictures_is_refused(tmp_path, make, message):
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "text.tar").write_text("hello")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=message):
        open_source(str(make(tmp_path)))


def test_folder_of_tars_says_how_to_give_tars(tmp_path):
    (tmp_path / "x.tar").write_bytes(pack([Sample("k", png(), "png", "s")]))
    with pytest.raises(SourceError, match=r"for webdataset tars give '.*/\*\.tar'"):
        open_source(str(tmp_path))


def test_folder_on_another_file_system_reads_the_same(tmp_path):
    fs = fsspec.filesystem("memory")
    for name in ("a.png", "sub/b.png", "sub/notes.txt", ".cache/c.png", ".cache/d/e.png", "out/contact_sheet.png"):
        fs.pipe_file(f"/corpus/{name}", png())
    source = open_source("memory://corpus", leave_out="memory://corpus/out")
    assert keys(source) == ["a", "sub__b"]
    assert dict(source.ignored) == {".txt": 1, "hidden folder": 1}
    first = source.digest()
    fs.pipe_file("/corpus/a.png", png((7, 7)))
    assert open_source("memory://corpus", leave_out="memory://corpus/out").digest() != first
    assert keys(open_source("memory://corpus/sub/b.png")) == ["b"]
    fs.makedirs("/nothing")
    with pytest.raises(SourceError, match="no pictures in"):
        open_source("memory://nothing")
    with pytest.raises(SourceError, match="cannot open 'gopher://x/y'"):
        open_source("gopher://x/y")


def test_enormous_file_is_set_aside_without_being_read(tmp_path):
    (tmp_path / "good.png").write_bytes(png())
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: takes no room
    faults = {s.key: s.fault or "" for s in open_source(str(tmp_path)).samples()}
    assert "over the limit" in faults["huge"]
    assert faults["good"] == ""


@pytest.mark.ops
def test_ten_thousand_files_are_sharded_fast_and_in_flat_memory(tmp_path):
    data = png()
    for number in range(10_000):
        (tmp_path / f"in{number % 10}").mkdir(exist_ok=True)
        (tmp_path / f"in{number % 10}/{number}.png").write_bytes(data)
    run = RunFolder(str(tmp_path / "out"))
    source = open_source(str(tmp_path), leave_out=str(tmp_path / "out"))
    peaks = []

    def watched():
        tracemalloc.start()
        for number, sample in enumerate(source.samples()):
            if number % 1000 == 999:
                peaks.append(tracemalloc.get_traced_memory()[0])
            yield sample
        tracemalloc.stop()

    shards = write_shards(run, watched(), itertools.repeat(64), source.identity, "d")
    assert sum(shard.samples for shard in shards) == 10_000
    # From the second thousand to the last: what stays is a name's worth per picture, not its content.
    assert peaks[-1] - peaks[1] < 8_000 * 600


def test_pipe_is_set_aside_and_never_waited_for(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    os.mkfifo(tmp_path / "b.png")
    faults = {s.key: s.fault for s in open_source(str(tmp_path)).samples()}
    assert faults == {"a": None, "b": "cannot be read: it is a pipe or device, not a file"}


def test_names_with_colons_and_names_that_are_only_an_ending(tmp_path):
    (tmp_path / "x::y").mkdir()
    for name in ("a.png", ".jpg", ".DS_Store"):
        (tmp_path / "x::y" / name).write_bytes(png())
    source = open_source(str(tmp_path / "x::y"))
    assert [s.source for s in source.samples()] == [".jpg", "a.png"]
    assert dict(source.ignored) == {".ds_store": 1}


class Unstable(MemoryFileSystem):
    """Raises what packages raise, and knows no sizes."""

    protocol = "unstable"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("unstable://").strip("/")

    def info(self, path: str, **options) -> dict:
        if "locked" in path:
            raise RuntimeError("403\nrequest 7")
        return {**super().info(path, **options), "size": None}


def test_whatever_a_file_system_raises_is_a_fault(tmp_path, monkeypatch):
    fsspec.register_implementation("unstable", Unstable, clobber=True)
    Unstable().pipe_file("/odd/a.png", png())
    Unstable().pipe_file("/odd/b.png", bytes(3000))
    monkeypatch.setattr("pnp_core.inputs.sources.base.MAX_BYTES", 1000)
    (tmp_path / "list.txt").write_text("unstable://odd/a.png\nunstable://locked.png\nunstable://odd/b.png\n")
    source = open_source(str(tmp_path / "list.txt"))
    assert source.digest()
    expected = [
        None,
        "cannot be read: 403 request 7",
        "3000 bytes are over the limit of 1000 for one picture",
    ]
    assert [s.fault for s in source.samples()] == expected
    with pytest.raises(SourceError, match="403 request 7"):
        open_source("unstable://locked.png")
