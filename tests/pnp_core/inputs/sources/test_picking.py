"""What of a folder, a list or tars is taken for a picture, whatever it is called."""

import io
import os
import shutil
import tarfile
from collections import Counter
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from pnp_core.errors import SourceError
from pnp_core.inputs.images import decode_image
from pnp_core.inputs.sources import open_source
from pnp_core.inputs.sources._picking import _begins_like_a_image
from pnp_core.inputs.sources.folder import GrowingFolder
from pnp_core.inputs.sources.links import passed_over
from pnp_core.storage.first_bytes import only_images

FORMATS = {
    **{"pgm": "PPM", "pbm": "PPM", "ppm": "PPM", "pnm": "PPM", "pfm": "PPM", "dib": "DIB", "bmp": "BMP"},
    **{"j2k": "JPEG2000", "j2c": "JPEG2000", "jpc": "JPEG2000", "jpx": "JPEG2000", "jp2": "JPEG2000"},
    **{"mpo": "MPO", "apng": "PNG", "jfi": "JPEG", "jif": "JPEG", "jfif": "JPEG", "jpe": "JPEG", "btf": "TIFF"},
}
MODES = {"pgm": "L", "pbm": "1", "pfm": "F"}


def image(name: str = "JPEG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 100, 50)).convert(mode).save(buffer, format=name)
    return buffer.getvalue()


def put(folder, names: dict[str, bytes]) -> str:
    for name, data in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return str(folder)


def sources(source) -> list[str]:
    return [sample.source for sample in source.samples()]


def test_folder_of_pgm_and_pbm_is_read(shared_data):
    source = open_source(str(shared_data / "wild/pgm-folder"))
    assert sources(source) == ["s1_1.pgm", "s1_2.pgm", "x.pbm"]
    assert not source.ignored
    for sample in only_images(source.samples()):
        assert sample.fault is None
        assert decode_image(sample.image, 10**8).pixels.std() > 10


@pytest.mark.parametrize("ending", FORMATS)
def test_every_ending_of_a_format_that_is_read_is_taken(tmp_path, ending):
    put(tmp_path, {f"a.{ending.upper()}": image(FORMATS[ending], MODES.get(ending, "RGB"))})
    (sample,) = only_images(open_source(str(tmp_path)).samples())
    assert sample.fault is None
    assert decode_image(sample.image, 10**8).pixels.shape == (8, 8, 3)


ODD = ("cat.jpg?w=640", "cat.jpg?w=320&v=1.2", "cat.jpg.1", "cat.jpg.2", "cat.jpg@300w", "photo.php", "x.dat", "y.bin")


@pytest.mark.parametrize("name", ODD)
def test_first_bytes_decide_where_the_ending_does_not(tmp_path, name):
    put(tmp_path, {f"yes/{name}": image(), f"no/{name}": b"just some text", "a.png": image("PNG")})
    source = open_source(str(tmp_path))
    assert sources(source) == ["a.png", f"yes/{name}"]
    assert source.ignored.total() == 1


def test_names_made_by_downloads_give_pictures_of_their_own(tmp_path):
    put(tmp_path, {name: image() for name in ODD})
    samples = list(open_source(str(tmp_path)).samples())
    assert len({sample.key for sample in samples}) == len(ODD)
    assert all(sample.fault is None and sample.extension.isalnum() for sample in samples)


@pytest.mark.parametrize(
    "name",
    [
        "a.txt",
        "a.jpg.json",
        "a.jpg.part",
        "a.jpg.crdownload",
        "a.jpg~",
        "a.jpg.bak",
        "a.NEF",
        "a.tif.ovr",
        ".a.jpg.swp",
    ],
)
def test_what_says_that_it_is_something_else_is_passed_over_unseen(tmp_path, name):
    put(tmp_path, {name: image(), "b.png": image("PNG")})
    source = open_source(str(tmp_path))
    assert sources(source) == ["b.png"]
    assert source.ignored.total() == 1


def test_pipe_with_an_odd_name_is_not_waited_for(tmp_path):
    put(tmp_path, {"a.png": image("PNG")})
    os.mkfifo(tmp_path / "cat.jpg.1")
    assert sources(open_source(str(tmp_path))) == ["a.png"]


def test_link_that_leaves_the_folder_is_not_looked_into(tmp_path):
    put(tmp_path, {"in/a.png": image("PNG"), "out/x.1": image()})
    (tmp_path / "in/cat.jpg.1").symlink_to(tmp_path / "out/x.1")
    assert sources(open_source(str(tmp_path / "in"))) == ["a.png"]
    assert sources(open_source(str(tmp_path / "in"), follow_links=True)) == ["a.png", "cat.jpg.1"]


SERVERS = {
    "a.jpg": image(),
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg": image(),
    "b/@eaDir/b.jpg": image(),
    "#recycle/gone.jpg": image(),
    "__MACOSX/._a.jpg": b"\0\5\x16\7",
    "$RECYCLE.BIN/c.jpg": image(),
    ".thumbnails/a.jpg": image(),
}
SAID = [
    "1 files passed over because they are no pictures (hidden folder x1)",
    "5 folders that file servers make passed over (@eaDir x2, #recycle x1, __MACOSX x1, $RECYCLE.BIN x1)",
]


def test_folders_of_file_servers_are_passed_over_and_said(tmp_path):
    source = open_source(put(tmp_path, SERVERS))
    assert sources(source) == ["a.jpg"]
    said = passed_over(source.ignored)
    assert said[0] == SAID[0]
    assert said[1].startswith("5 folders that file servers make passed over (@eaDir x2, ")


def test_bucket_and_growing_folder_pass_them_over_too(tmp_path):
    fs = fsspec.filesystem("memory")
    for name, data in SERVERS.items():
        fs.pipe_file(f"/servers/{name}", data)
    fs.pipe_file("/servers/cat.jpg?w=1", image())
    source = open_source("memory://servers")
    assert sources(source) == ["a.jpg", "cat.jpg?w=1"]
    assert passed_over(source.ignored)[1].startswith("5 folders that file servers make")
    growing = GrowingFolder.of(put(tmp_path, SERVERS), exclude=("a.*",))
    ignored = source.ignored.__class__()
    assert growing.files(None, ignored) == []
    assert passed_over(ignored)[-1] == "1 files and folders left out by --exclude"


def test_folder_that_holds_nothing_else_says_so(tmp_path):
    put(tmp_path, {"@eaDir/a.jpg": image()})
    with pytest.raises(SourceError, match=r"no pictures in .*, but 1 folders that file servers make passed over"):
        open_source(str(tmp_path))


def test_folder_that_is_asked_for_is_read_whatever_it_is_called(tmp_path):
    put(tmp_path, {"@eaDir/a.jpg": image()})
    assert sources(open_source(str(tmp_path / "@eaDir"))) == ["a.jpg"]


NAMES = ("a.jpg", "b.gif", "raw/c.jpg", "raw/deep/d.jpg", "e/thumbs/f.jpg", "thumbs.jpg")


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["thumbs"], ["a.jpg", "b.gif", "raw/c.jpg", "raw/deep/d.jpg", "thumbs.jpg"]),
        (["*.gif", "raw"], ["a.jpg", "e/thumbs/f.jpg", "thumbs.jpg"]),
        (["raw/*/"], ["a.jpg", "b.gif", "e/thumbs/f.jpg", "thumbs.jpg"]),
        (["raw/deep"], ["a.jpg", "b.gif", "e/thumbs/f.jpg", "raw/c.jpg", "thumbs.jpg"]),
        (["A.JPG"], sorted(NAMES)),
    ],
)
def test_patterns_leave_out_files_and_folders_of_folders_lists_and_tars(tmp_path, patterns, left):
    folder = tmp_path / "in"
    put(folder, {name: image() for name in NAMES})
    (folder / "all.txt").write_text("\n".join(NAMES))
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for name in NAMES:
            tar.add(folder / name, name)
    whole = open_source(str(folder))
    found = open_source(str(folder), exclude=tuple(patterns))
    assert sorted(sources(found)) == left
    assert (found.digest() != whole.digest()) == (len(left) < len(NAMES))
    assert sorted(sources(open_source(str(folder / "all.txt"), exclude=tuple(patterns)))) == left
    of_tar = open_source(str(tmp_path / "all.tar"), exclude=tuple(patterns))
    assert sorted(name.removeprefix("all.tar!") for name in sources(of_tar)) == left
    assert of_tar.digest() != open_source(str(tmp_path / "all.tar")).digest()


def test_what_patterns_left_out_is_counted_and_said(tmp_path):
    put(tmp_path, {name: image() for name in NAMES})
    source = open_source(str(tmp_path), exclude=("*.gif", "raw"))
    assert passed_over(source.ignored) == ["2 files and folders left out by --exclude"]
    with pytest.raises(SourceError, match="but 5 files and folders left out by --exclude"):
        open_source(str(tmp_path), exclude=("*.jpg", "*.gif", "raw", "e"))
    (tmp_path / "list.txt").write_text("a.jpg\n")
    with pytest.raises(SourceError, match="all of its 1 lines are left out by --exclude"):
        open_source(str(tmp_path / "list.txt"), exclude=("a*",))


def test_patterns_for_a_source_without_names_are_refused(tmp_path, shared_data):
    put(tmp_path, {"a.jpg": image()})
    shutil.copy(shared_data / "wild/list-of-images-parquet/list_image.parquet", tmp_path / "x.parquet")
    for name in ("a.jpg", "x.parquet"):
        with pytest.raises(SourceError, match=r"--exclude leaves out files of a folder, lines of a list and files of"):
            open_source(str(tmp_path / name), exclude=("a",))


def test_tar_sets_aside_what_lies_in_a_file_servers_folder(tmp_path):
    names = ("a.jpg", "@eaDir/a.jpg", "@eaDir/index.db", "b/cat.jpg?w=640", "b/dog.jpg.1", "b/x.cls")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            data = image()
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    found = {s.source.removeprefix("x.tar!"): s.fault for s in open_source(str(tmp_path / "x.tar")).samples()}
    assert found.pop("@eaDir/a.jpg") == (
        "lies in @eaDir, a folder that file servers make; --exclude '@eaDir' leaves it out"
    )
    assert found.pop("b/x") == "the tar's record holds no picture"
    assert found == {"a.jpg": None, "b/cat.jpg?w=640": None, "b/dog.jpg.1": None}
    left = open_source(str(tmp_path / "x.tar"), exclude=("@eaDir", "*.cls"))
    assert all(sample.fault is None for sample in left.samples())


class Counted(MemoryFileSystem):
    """Another machine that counts what is asked of it."""

    protocol = "counted"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    asked: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("counted://", "memory://"))

    def cat_file(self, path, start=None, end=None, **kwargs):
        self.asked.append(path)
        return super().cat_file(path, start, end, **kwargs)


@pytest.fixture
def bucket():
    fsspec.register_implementation("counted", Counted, clobber=True)
    fs = fsspec.filesystem("counted")
    Counted.store.clear()
    Counted.asked.clear()
    return fs


def test_file_is_looked_into_again_only_when_it_has_changed(tmp_path):
    folder = GrowingFolder.of(put(tmp_path, {"x.dat": image(), "y.dat": b"no picture"}))
    assert [file.name for file in folder.files(None, Counter())] == ["x.dat"]
    looked = _begins_like_a_image.cache_info().misses
    assert [file.name for file in folder.files(None, Counter())] == ["x.dat"]
    assert _begins_like_a_image.cache_info().misses == looked
    put(tmp_path, {"y.dat": image()})
    assert [file.name for file in folder.files(None, Counter())] == ["x.dat", "y.dat"]


def test_bucket_is_looked_into_where_a_name_claims_a_picture_and_once(bucket):
    for name in ("a.jpg", "b.jpg?w=1", "c.dat", "photo.php", "d.jpg.1"):
        bucket.pipe_file(f"/looks/{name}", image() if name != "d.jpg.1" else b"no picture")
    source = open_source("counted://looks")
    assert source.digest() == open_source("counted://looks").digest()
    assert sorted(Counted.asked) == ["/looks/b.jpg?w=1", "/looks/d.jpg.1"]
    assert sources(source) == ["a.jpg", "b.jpg?w=1"]
    assert source.ignored == {".dat": 1, ".php": 1, ".1": 1}


def test_bucket_that_grows_is_not_asked_for_what_its_manifest_knows(bucket):
    bucket.pipe_file("/grows/a.jpg?w=1", image())
    growing = GrowingFolder.of("counted://grows")
    (seen,) = growing.files(None, Counter())
    _begins_like_a_image.cache_clear()  # as in another process
    Counted.asked.clear()
    assert growing.files(None, Counter(), {seen.name: seen.stamp}) == [seen]
    assert Counted.asked == []


def test_name_in_a_bucket_that_looks_like_a_url_is_a_name(bucket):
    for name in ("a.jpg", "http://host/x.jpg"):
        bucket.pipe_file(f"/odd/{name}", image())
    found = list(open_source("counted://odd").samples())
    assert [sample.source for sample in found] == ["a.jpg", "http://host/x.jpg"]
    assert all(sample.fault is None and sample.image == image() for sample in found)


def test_file_that_is_replaced_by_one_of_the_same_size_and_time_is_looked_into_again(tmp_path):
    folder = GrowingFolder.of(put(tmp_path, {"x.dat": bytes(len(image()))}))
    assert folder.files(None, Counter()) == []
    times = (tmp_path / "x.dat").stat()
    put(tmp_path, {"new": image()})
    os.utime(tmp_path / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
    (tmp_path / "new").rename(tmp_path / "x.dat")
    assert [file.name for file in folder.files(None, Counter())] == ["x.dat"]
