import os
import subprocess
import sys
from pathlib import Path

import pytest

from pnp_core.errors import CorruptRunError, OutputError
from pnp_core.records import Quarantined
from pnp_core.store import RunFolder, StageFolder, StageOutput, discard_shards, fingerprint


@pytest.fixture(params=["local", "memory"])
def run(request, tmp_path) -> RunFolder:
    """The same behaviour on a disk and on an object store without rename."""
    return RunFolder(str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}/run")


def folder_of(run: RunFolder) -> StageFolder:
    return StageFolder(run, "masks", "abc")


def test_what_is_written_is_read_back(run):
    run.write("a/b.bin", b"x" * 10)
    assert run.read("a/b.bin") == b"x" * 10
    assert run.size("a/b.bin") == 10
    assert run.glob("a/*") == ["a/b.bin"]


def test_missing_file_says_where(run):
    with pytest.raises(CorruptRunError, match=r"gone\.bin' is missing"):
        run.read("gone.bin")


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    run = RunFolder(str(tmp_path))
    run.write("a.bin", b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"a\.bin': No space left on device"):
        run.write("a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert [f.name for f in tmp_path.iterdir()] == ["a.bin"]


def test_path_below_a_file_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        RunFolder(str(tmp_path / "file")).check_writable()


def test_unknown_protocol_is_an_output_error():
    with pytest.raises(OutputError, match="cannot open output 'warp://x'"):
        RunFolder("warp://x")


def test_work_is_done_once_and_resumed_after(run):
    calls = []

    def work():
        calls.append(1)
        return StageOutput({"parquet": b"data"}, done=3)

    first = folder_of(run).complete("000000", "input-1", work)
    second = folder_of(run).complete("000000", "input-1", work)
    assert (first.resumed, second.resumed, len(calls)) == (False, True, 1)
    assert first.record_sha256 == second.record_sha256
    assert second.done == 3


def test_changed_input_is_worked_on_again(run):
    folder_of(run).complete("000000", "input-1", lambda: StageOutput({"parquet": b"one"}, 1))
    again = folder_of(run).complete("000000", "input-2", lambda: StageOutput({"parquet": b"two"}, 1))
    assert not again.resumed
    assert run.read("masks/abc/000000.parquet") == b"two"


@pytest.mark.parametrize("damage", ["missing", "truncated", "record"])
def test_damaged_output_is_made_again(run, damage):
    def work():
        return StageOutput({"parquet": b"data"}, 1)

    folder_of(run).complete("000000", "input-1", work)
    if damage == "missing":
        run.remove("masks/abc/000000.parquet")
    elif damage == "truncated":
        run.write("masks/abc/000000.parquet", b"da")
    else:
        run.write("masks/abc/000000.done.json", b'{"stage": "mas')
    assert not folder_of(run).complete("000000", "input-1", work).resumed
    assert run.read("masks/abc/000000.parquet") == b"data"


def test_record_is_written_last(run, monkeypatch):
    order = []
    write = RunFolder.write
    monkeypatch.setattr(RunFolder, "write", lambda self, name, data: order.append(name) or write(self, name, data))
    quarantined = [Quarantined("k", "s", "masks", "why")]
    folder_of(run).complete("000000", "i", lambda: StageOutput({"parquet": b"1"}, 1, quarantined, {"png/k.png": b"2"}))
    assert order[-1] == "masks/abc/000000.done.json"
    assert len(order) == 4


def test_quarantine_lists_key_source_stage_and_reason_and_goes_when_healed(run):
    bad = [Quarantined("k", "a/k.jpg", "masks", "truncated")]
    folder_of(run).complete("000000", "i", lambda: StageOutput({}, 0, bad))
    rows = run.read_table("quarantine/masks/abc/000000.parquet").to_pylist()
    assert rows == [{"key": "k", "source": "a/k.jpg", "stage": "masks", "reason": "truncated"}]
    folder_of(run).complete("000000", "j", lambda: StageOutput({}, 1))
    assert not run.exists("quarantine/masks/abc/000000.parquet")


def test_outputs_of_changed_shards_are_discarded_and_the_others_kept(run):
    for shard in ("000000", "000001"):
        output = StageOutput({"parquet": b"1"}, 1, extra={f"png/abc/{shard}-key.png": b"2"})
        folder_of(run).complete(shard, "i", lambda output=output: output)
    discard_shards(run, keep={"000000"})
    assert run.glob("masks/abc/*") == ["masks/abc/000000.done.json", "masks/abc/000000.parquet"]
    assert not run.glob("png/*/*")


def test_files_a_killed_stage_left_without_a_record_are_discarded_too(run):
    run.write("masks/abc/000003.parquet", b"1")
    run.write("quarantine/masks/abc/000003.parquet", b"1")
    discard_shards(run, keep={"000000"})
    assert run.glob("masks/*/*") == run.glob("quarantine/*/*/*") == []


def test_fingerprint_is_stable_over_key_order_and_processes():
    assert fingerprint("a", {"x": 1, "y": [2]}) == fingerprint("a", {"y": [2], "x": 1})
    assert fingerprint("a", {"x": 1}) != fingerprint("a", {"x": 2})
    # A literal, so that a change of the scheme (which orphans every stored result) is noticed.
    assert fingerprint("salience", 1) == "487c695d80c5da3b"


def test_local_folder_is_created_on_first_write(tmp_path):
    RunFolder(str(tmp_path / "deep" / "er")).write("x", b"1")
    assert Path(tmp_path / "deep" / "er" / "x").read_bytes() == b"1"


NATIVE_THREADS = """
import sys
from pathlib import Path
import pyarrow as pa
from pnp_core.store import RunFolder, table_bytes

def threads():
    return len([t for t in Path("/proc/self/task").iterdir() if "jemalloc" not in (t / "comm").read_text()])

run = RunFolder(sys.argv[1])
run.write("table.parquet", table_bytes(pa.table({"a": list(range(1000)), "b": ["b"] * 1000})))
before = threads()
assert run.read_table("table.parquet", ["b", "a"]).column_names == ["b", "a"]
assert threads() == before, "Arrow reads in threads of its own, which may take the process down when it ends"
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="native threads are counted as Linux shows them")
def test_reading_a_table_leaves_no_native_thread_behind(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", NATIVE_THREADS, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
