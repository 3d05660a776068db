"""Folders on another machine: their order, slow lines, outages, connections of which there is one."""

import ftplib
import io
import threading
from asyncio import sleep
from collections import Counter
from collections.abc import Callable

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from pnp_core.errors import NoAnswerError, SourceError
from pnp_core.inputs.sources import _remote, open_source
from pnp_core.inputs.sources.base import FileRef, NotReadError, passes
from pnp_core.inputs.sources.folder import FolderSource

NAMES = [f"{number:02}.png" for number in range(30)]


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="PNG")
    return buffer.getvalue()


PNG = png()


class Bucket(AsyncFileSystem):
    """Answers as a test says, at once; what comes late is what it says to be late."""

    protocol = "bucket"
    names = NAMES
    size = len(PNG)
    takes = 0.0
    asked: Counter[str] = Counter()
    under_way = 0
    says: Callable[[str], object] = staticmethod(lambda name: None)

    @classmethod
    def _strip_protocol(cls, path):
        return path.removeprefix("bucket://").strip("/")

    async def _info(self, path, **_):
        if path == "photos":
            return {"name": path, "type": "directory", "size": 0}
        return {"name": path, "type": "file", "size": self.size}

    async def _ls(self, path, detail=True, **_):
        return [await self._info(f"{path}/{name}") for name in self.names] if path == "photos" else []

    async def _cat_file(self, path, **_):
        name = path.rpartition("/")[2]
        self.asked[name] += 1
        type(self).under_way += 1
        try:
            type(self).says(name)
            await sleep(self.takes)
            type(self).says(name)
            return PNG
        finally:
            type(self).under_way -= 1


@pytest.fixture
def bucket(monkeypatch):
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    Bucket.asked.clear()
    monkeypatch.setattr(Bucket, "says", staticmethod(lambda name: None))
    monkeypatch.setattr(_remote, "_PAUSE", 0)
    return Bucket


def opened(url: str = "bucket://photos") -> FolderSource:
    source = open_source(url)
    assert isinstance(source, FolderSource)
    return source


def late(*names: str, times: int = 1) -> Callable[[str], None]:
    """Of these pictures the first questions get no answer."""

    def says(name: str) -> None:
        if name in names and Bucket.asked[name] <= times:
            raise TimeoutError

    return says


def faults(source: FolderSource) -> dict[str, str | None]:
    return {sample.source: sample.fault for sample in source.samples()}


@pytest.mark.parametrize("names", [NAMES[:1], NAMES[3:5], NAMES[-1:], NAMES])
def test_order_is_that_of_the_listing_whatever_comes_late(bucket, names):
    bucket.says = staticmethod(late(*names))
    found = list(opened().samples())
    assert [sample.source for sample in found] == NAMES
    assert all(sample.image == PNG and sample.fault is None for sample in found)


@pytest.mark.parametrize("name", [NAMES[0], NAMES[12], NAMES[-1]])
def test_picture_that_never_comes_is_the_only_one_that_is_lost(bucket, name):
    bucket.says = staticmethod(late(name, times=99))
    assert faults(opened()) == {**dict.fromkeys(NAMES), name: "cannot be read: no answer within 30 seconds"}
    assert bucket.asked[name] == 3


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionRefusedError(111, "Connection refused")])
def test_outage_ends_the_run_and_sets_no_picture_aside(bucket, error):
    def says(_: str) -> None:
        if bucket.asked.total() > 12:
            raise error

    bucket.says = staticmethod(says)
    samples = opened().samples()
    found = []
    with pytest.raises(NoAnswerError, match=r"^'photos' has stopped to answer \(.+\); run the command again when"):
        found += (sample.fault for sample in samples)
    assert set(found) == {None}
    bucket.says = staticmethod(lambda name: None)
    assert faults(opened()) == dict.fromkeys(NAMES)


def test_outage_that_ends_in_time_costs_nothing(bucket):
    def says(_: str) -> None:
        if 12 < bucket.asked.total() < 25:
            raise TimeoutError

    bucket.says = staticmethod(says)
    assert list(faults(opened()).items()) == [(name, None) for name in NAMES]


def test_line_that_is_too_slow_for_several_pictures_is_used_for_one_at_a_time(bucket, monkeypatch):
    monkeypatch.setattr(Bucket, "takes", 0.02)

    def says(_: str) -> None:
        if bucket.under_way > 1:
            raise TimeoutError

    bucket.says = staticmethod(says)
    assert faults(opened()) == dict.fromkeys(NAMES)
    assert bucket.asked.total() < 42, "each is asked for several times"


def test_large_picture_has_longer(bucket, monkeypatch):
    monkeypatch.setattr(Bucket, "size", 10 * 2**20 + 1)
    bucket.says = staticmethod(late("b.png", times=99))
    monkeypatch.setattr(Bucket, "names", ["a.png", "b.png"])
    assert faults(opened())["b.png"] == "cannot be read: no answer within 330 seconds"


def test_single_picture_has_the_limit_that_was_given(bucket):
    source = open_source("bucket://photos/a.png", fetch_seconds=7)
    bucket.says = staticmethod(late("a.png", times=99))
    with pytest.raises(NoAnswerError, match="no answer within 7 seconds"):
        list(source.samples())


class Line(MemoryFileSystem):
    """One connection, as ftp's: made by opening, broken by a question that gets no answer."""

    protocol = "line"
    store: dict = {}
    pseudo_dirs: list = [""]
    opened = 0
    refused: Exception | None = None
    hangs: list[str] = []
    hung = threading.Event()

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        type(self).opened += 1
        if self.refused:
            raise self.refused
        self.busy = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("line://", "memory://"))

    def cat_file(self, path, start=None, end=None, **kwargs):
        assert self.busy.acquire(blocking=False), "two questions at a time"
        if path in self.hangs:
            self.hangs.remove(path)
            self.hung.wait()
        self.busy.release()
        return super().cat_file(path, start, end, **kwargs)


@pytest.fixture
def line(bucket, monkeypatch):
    fsspec.register_implementation("line", Line, clobber=True)
    Line.clear_instance_cache()
    monkeypatch.setattr(Line, "opened", 0)
    monkeypatch.setattr(Line, "hangs", [])
    monkeypatch.setattr(Line, "hung", threading.Event())
    monkeypatch.setattr(Line, "refused", None)
    monkeypatch.setattr(Line, "store", {})
    fs = fsspec.filesystem("line")
    for name in NAMES:
        fs.pipe_file(f"/photos/{name}", PNG)
    yield Line
    Line.hung.set()


def test_one_connection_does_for_all_pictures(line):
    assert faults(opened("line://photos")) == dict.fromkeys(NAMES)
    assert line.opened == 1


def test_connection_that_hangs_is_left_alone_and_another_one_made(line):
    line.hangs.append("/photos/03.png")
    source = open_source("line://photos", fetch_seconds=1.5)
    assert [(sample.source, sample.fault) for sample in source.samples()] == [(name, None) for name in NAMES]
    assert line.opened == 2


def test_machine_that_takes_no_further_connection_ends_the_run_in_one_line(line):
    source = opened("line://photos")
    line.hangs.append("/photos/03.png")
    line.refused = ftplib.error_temp("421 Too many connections")
    source = FolderSource("photos", FileRef(source.root.fs, source.root.path, seconds=0.5), source.names)
    with pytest.raises(NoAnswerError, match="421 Too many connections"):
        list(source.samples())


def test_threads_that_hang_for_ever_are_bounded(line, monkeypatch):
    monkeypatch.setattr(_remote, "_TRIES", 1000)
    before = threading.active_count()
    source = opened("line://photos")
    line.hangs.extend(f"/photos/{name}" for name in NAMES * 1000)
    source = FolderSource("photos", FileRef(source.root.fs, source.root.path, seconds=0.01), source.names)
    with pytest.raises(NoAnswerError, match="has stopped to answer"):
        list(source.samples())
    assert threading.active_count() - before <= 20


def test_list_whose_machine_takes_no_connection_has_faults(line, tmp_path, monkeypatch):
    fsspec.filesystem("line").pipe_file("/list.txt", b"photos/00.png\nphotos/01.png\n")
    source = open_source("line://list.txt")
    monkeypatch.setattr(Line, "cachable", False)
    line.refused = ftplib.error_temp("421 Too many connections")
    assert [sample.fault for sample in source.samples()] == [
        f"cannot open '/photos/{name}': 421 Too many connections" for name in NAMES[:2]
    ]


class Near(MemoryFileSystem):
    """At hand, and a disk of its own that gives no answer, as NFS does."""

    protocol = ("near", "memory")
    store: dict = {}

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("near://", "memory://"))

    def cat_file(self, path, start=None, end=None, **kwargs):
        if path.endswith("a.png"):
            raise TimeoutError(110, "Connection timed out")
        return super().cat_file(path, start, end, **kwargs)


def test_disk_at_hand_that_gives_no_answer_is_a_fault():
    fsspec.register_implementation("near", Near, clobber=True)
    fs = Near()
    for name, content in {"list.txt": b"a.png\nb.png\n", "a.png": PNG, "b.png": PNG}.items():
        fs.pipe_file(f"/near/{name}", content)
    found = {s.source: s.fault for s in open_source("near://near/list.txt").samples()}
    assert found == {"a.png": "cannot be read: Connection timed out", "b.png": None}


@pytest.mark.parametrize("cache", ["simplecache", "filecache"])
def test_cache_of_a_bucket_is_limited_as_the_bucket_is(line, cache):
    of_bucket = FileRef(fsspec.filesystem(cache, target_protocol="bucket"), "photos")
    assert not of_bucket.concurrent, "it passes on what its bucket says of itself"
    source = opened(f"{cache}::line://photos")
    assert not source.root.at_hand
    assert faults(source) == dict.fromkeys(NAMES)


def test_what_may_pass_is_known_by_the_types_of_the_packages():
    kinds = {
        TimeoutError(): True,
        ftplib.error_temp("421"): True,
        ftplib.error_perm("550"): False,
        EOFError(): True,
        OSError(113, "No route to host"): True,
        FileNotFoundError(): False,
        type("EndpointConnectionError", (type("HTTPClientError", (Exception,), {}),), {})(): True,
        type("HttpError", (Exception,), {"code": 503})(): True,
    }
    assert {error: passes(error) for error in kinds} == kinds
    assert not NotReadError("too large").may_pass
    assert not issubclass(NoAnswerError, SourceError)
