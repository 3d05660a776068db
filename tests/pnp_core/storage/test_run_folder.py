import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pnp_core.data import Quarantined, ShardRef
from pnp_core.errors import CorruptRunError, DamagedError, ForeignFilesError, OutputError
from pnp_core.inputs.images import encode_grey
from pnp_core.storage.completion import StageFolder, StageOutput
from pnp_core.storage.files import MARK
from pnp_core.storage.run_folder import RunFolder, fingerprint
from pnp_core.storage.seals import json_bytes, sealed, sha256
from pnp_core.storage.shards import discard_outputs


@pytest.fixture(params=["local", "memory"])
def run(request, tmp_path) -> RunFolder:
    """The same behaviour on a disk and on an object store without rename."""
    return RunFolder(str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}/run")


IMAGE = encode_grey(np.arange(9, dtype=np.uint8).reshape(3, 3))


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
    with pytest.raises(OutputError, match=r"cannot write .*: No space left on device"):
        run.write("a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert [f for f in run.names() if not f.startswith(MARK)] == ["a.bin"]
    assert not run.glob(f"{MARK}/half-written/*")


def test_path_below_a_file_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        RunFolder(str(tmp_path / "file")).write("x", b"1")


def test_file_of_somebody_else_is_neither_written_over_nor_deleted(run):
    run.put("note.txt", b"mine")
    with pytest.raises(ForeignFilesError, match=r"note\.txt' is there and was not written by this run"):
        run.write("note.txt", b"ours")
    with pytest.raises(ForeignFilesError), run.stream("note.txt") as file:
        file.write(b"ours")
    run.remove("note.txt")
    assert run.get("note.txt") == b"mine"


def test_file_that_changed_since_it_was_written_is_damaged(run):
    run.write("a.bin", b"one")
    run.write("a.bin", b"two")
    assert run.read("a.bin") == b"two"
    run.put("a.bin", b"one")  # as a kill between ledger and file leaves it
    assert run.read("a.bin") == b"one"
    run.put("a.bin", b"six")
    with pytest.raises(DamagedError, match=r"a\.bin' is damaged"):
        run.read("a.bin")
    assert run.find_whole("a.bin") is None


def test_streamed_file_is_checked_too(run):
    with run.stream("a.bin") as file:
        file.write(b"one ")
        file.write(b"two")
    assert run.read("a.bin") == b"one two"
    run.put("a.bin", b"one tw0")
    assert run.find_whole("a.bin") is None


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
    assert run.get("masks/abc/000000.parquet") == b"two"


DAMAGES = {
    "missing": lambda run: run.delete("masks/abc/000000.parquet"),
    "truncated": lambda run: run.put("masks/abc/000000.parquet", b"da"),
    "one bit flipped": lambda run: run.put("masks/abc/000000.parquet", b"dat`"),
    "record cut": lambda run: run.put("masks/abc/000000.done.json", b'{"stage": "mas'),
    "record zeroed": lambda run: run.put("masks/abc/000000.done.json", bytes(300)),
    "record not UTF-8": lambda run: run.put("masks/abc/000000.done.json", b"\xff\xfe{}"),
    "record a list": lambda run: run.put("masks/abc/000000.done.json", b"[1,2]"),
    "record of another shape": lambda run: run.put("masks/abc/000000.done.json", b'{"input": "input-1"}'),
    "number in the record changed": lambda run: run.put(
        "masks/abc/000000.done.json", run.get("masks/abc/000000.done.json").replace(b'"done": 1', b'"done": 3')
    ),
    "record missing": lambda run: run.delete("masks/abc/000000.done.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_output_is_named_and_made_again(run, damage):
    def work():
        return StageOutput({"parquet": b"data"}, 1)

    folder_of(run).complete("000000", "input-1", work)
    DAMAGES[damage](run)
    again = folder_of(run).complete("000000", "input-1", work)
    assert not again.resumed
    assert again.mended.startswith("masks/abc/000000.") or damage == "record missing"
    assert run.get("masks/abc/000000.parquet") == b"data"
    assert folder_of(run).complete("000000", "input-1", work).resumed


def test_damaged_artifact_is_not_read(run):
    folder = folder_of(run)
    folder.complete("000000", "i", lambda: StageOutput({"parquet": b"data"}, 1))
    assert folder.read("000000", "parquet") == b"data"
    run.put("masks/abc/000000.parquet", b"dat`")
    with pytest.raises(DamagedError, match=r"000000\.parquet' is damaged: shard 000000 was written with other content"):
        folder.read("000000", "parquet")


@pytest.mark.parametrize("damaged", [False, True])
def test_record_of_a_version_with_one_digest_for_all_files_still_counts(run, damaged):
    files = {"masks/abc/000000.safetensors": b"maps", "masks/abc/000000.parquet": b"rows"}
    for path, data in files.items():
        run.put(path, data)
    record = {"stage": "masks", "fingerprint": "abc", "input": "i", "done": 1, "quarantined": 0}
    record["outputs"] = {path: len(data) for path, data in files.items()}
    record["sha256"] = sha256("".join(sha256(data) for data in files.values()).encode())
    run.put("masks/abc/000000.done.json", json_bytes(record))
    if damaged:
        run.put("masks/abc/000000.parquet", b"r0ws")
    assert (folder_of(run).find("000000", "i") is None) == damaged


def test_folder_with_files_of_somebody_else_is_not_written_to(run):
    run.put("masks/abc/holiday.png", b"mine")
    with pytest.raises(ForeignFilesError, match=r"holiday\.png"):
        folder_of(run).complete("000000", "i", lambda: StageOutput({"parquet": b"data"}, 1))
    assert [f for f in run.names() if not f.startswith(MARK)] == ["masks/abc/holiday.png"]


def test_record_is_written_last(run, monkeypatch):
    order = []
    put = RunFolder.put
    monkeypatch.setattr(RunFolder, "put", lambda self, name, data: order.append(name) or put(self, name, data))
    quarantined = [Quarantined("k", "s", "masks", "why")]
    output = StageOutput({"parquet": b"1"}, 1, quarantined, {"masks/abc/k.png": b"2"})
    folder_of(run).complete("000000", "i", lambda: output)
    assert order[0] == f"{MARK}/files.json"
    assert order[-1] == "masks/abc/000000.done.json"
    assert len(order) == 5


def test_quarantine_lists_key_source_stage_and_reason_and_goes_when_healed(run):
    bad = [Quarantined("k", "a/k.jpg", "masks", "truncated")]
    folder_of(run).complete("000000", "i", lambda: StageOutput({}, 0, bad))
    assert folder_of(run).quarantined("000000") == bad
    folder_of(run).complete("000000", "j", lambda: StageOutput({}, 1))
    assert not run.exists("quarantine/masks/abc/000000.parquet")


def shard(name: str, digest: str = "d") -> ShardRef:
    return ShardRef(name, 1, 10, digest)


def test_outputs_of_changed_shards_are_discarded_and_the_others_kept(run):
    for stage, extra in (("masks", {}), ("png", {"key"})):
        folder = StageFolder(run, stage, "abc")
        for name in ("000000", "000001"):
            files = {f"png/abc/{name}-{key}.png": b"2" for key in extra}
            folder.complete(name, "i", lambda files=files: StageOutput({"parquet": b"1"}, 1, extra=files))
    run.write("evaluations/def/run.json", b"{}")
    run.put("masks/abc/000001.txt", b"mine")
    run.put("png/holiday.png", b"mine")
    before = [shard("000000"), shard("000001")]
    discard_outputs(run, before, [shard("000000"), shard("000001", "other")])
    assert [f for f in run.names() if not f.startswith(MARK)] == [
        "masks/abc/000000.done.json",
        "masks/abc/000000.parquet",
        "masks/abc/000001.txt",
        "png/abc/000000-key.png",
        "png/abc/000000.done.json",
        "png/abc/000000.parquet",
        "png/holiday.png",
    ]


def test_files_a_killed_stage_left_without_a_record_are_discarded_too(run):
    folder_of(run).claim()
    run.put("masks/abc/000003.parquet", b"1")
    run.put("quarantine/masks/abc/000003.parquet", b"1")
    discard_outputs(run, [shard("000003")], [shard("000000")])
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
from pnp_core.storage.run_folder import RunFolder, table_bytes

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


def test_pictures_in_the_way_of_ours_stay_and_so_do_those_mended_by_hand(run):
    folder = StageFolder(run, "png", "abc")
    folder.complete("000000", "i", lambda: StageOutput({}, 1, extra={"png/abc/a.png": IMAGE}))
    mended = encode_grey(np.full((3, 3), 7, np.uint8))
    run.put("png/abc/a.png", mended)
    with pytest.raises(ForeignFilesError, match=r"a\.png' is there"):
        folder.complete("000000", "i", lambda: StageOutput({}, 1, extra={"png/abc/a.png": IMAGE}))
    assert run.get("png/abc/a.png") == mended
    run.put("png/abc/a.png", IMAGE[:-20] + bytes(20))  # damaged, and nobody's work
    folder.complete("000000", "i", lambda: StageOutput({}, 1, extra={"png/abc/a.png": IMAGE}))
    assert run.get("png/abc/a.png") == IMAGE
    run.put("png/abc/b.png", mended)
    with pytest.raises(ForeignFilesError, match=r"b\.png' is there"):
        folder.complete("000001", "i", lambda: StageOutput({}, 1, extra={"png/abc/b.png": IMAGE}))


def test_records_that_name_files_outside_of_the_folder_are_none(tmp_path):
    run = RunFolder(str(tmp_path / "run"))
    (tmp_path / "victim.txt").write_text("mine")
    record = {"stage": "masks", "fingerprint": "abc", "input": "i", "done": 1, "quarantined": 0, "sha256": "x"}
    run.put("masks/abc/000000.done.json", json_bytes({**record, "outputs": {"../victim.txt": 4}}))
    run.put(f"{MARK}/files.json", sealed({"files": {"../victim.txt": []}, "folders": []}))
    folder_of(run).discard("000000")
    run.remove("../victim.txt")
    assert (tmp_path / "victim.txt").read_text() == "mine"


def test_file_that_somebody_changed_is_not_deleted(run):
    run.write("a.csv", b"ours")
    run.put("a.csv", b"edited")
    run.remove("a.csv")
    assert run.get("a.csv") == b"edited"
