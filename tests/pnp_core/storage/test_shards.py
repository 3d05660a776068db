import io
import tarfile

import pytest

from pnp_core.data import Sample
from pnp_core.errors import DamagedError, ForeignFilesError, OutputError, SourceError
from pnp_core.storage.files import MARK
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import even_sizes, pack, read_index, read_refs, read_shard, unpack, write_shards


def sample(number: int) -> Sample:
    return Sample(f"k{number}", bytes([number]) * 5, "jpg", f"from/k{number}.jpg", b"truth", (3, 1))


def test_samples_survive_the_tar_in_order():
    faulty = Sample("gone", b"", "jpg", "gone.jpg", fault="cannot be read: Permission denied")
    samples = [sample(2), Sample("plain", b"x", "png", "s"), faulty, sample(1)]
    assert list(unpack(pack(samples))) == samples


def test_same_samples_give_the_same_bytes():
    assert pack([sample(1), sample(2)]) == pack([sample(1), sample(2)])


def test_long_keys_fit_a_tar():
    long = Sample("k" * 180, b"x", "png", "s")
    assert list(unpack(pack([long]))) == [long]


def test_shards_are_read_back_through_the_index(tmp_path):
    run = RunFolder(str(tmp_path))
    shards = write_shards(run, map(sample, range(7)), even_sizes(7, 3), "me", "d1")
    assert [s.samples for s in shards] == [3, 2, 2]
    assert read_index(run, "me", "d1") == shards
    assert [s.key for shard in shards for s in read_shard(run, shard)] == [f"k{i}" for i in range(7)]


def test_changed_source_is_sharded_again_and_surplus_tars_go(tmp_path):
    run = RunFolder(str(tmp_path))
    write_shards(run, map(sample, range(7)), even_sizes(7, 3), "me", "d1")
    assert read_index(run, "me", "d2") is None
    write_shards(run, map(sample, range(2)), even_sizes(2, 1), "me", "d2")
    assert run.glob("shards/*") == ["shards/000000.tar", "shards/index.parquet"]


def test_folder_of_another_source_is_refused(tmp_path):
    run = RunFolder(str(tmp_path))
    write_shards(run, [sample(1)], [1], "pictures A", "d1")
    with pytest.raises(OutputError, match="holds a run of pictures A, not of pictures B; choose another --out"):
        read_index(run, "pictures B", "d1")


def test_changed_tar_is_noticed(tmp_path):
    run = RunFolder(str(tmp_path))
    (shard,) = write_shards(run, [sample(1)], [1], "me", "d1")
    run.put("shards/000000.tar", pack([sample(2)]))
    with pytest.raises(DamagedError, match="is not the tar that was written as shard 000000"):
        list(read_shard(run, shard))
    assert read_index(run, "me", "d1") is None
    assert write_shards(run, [sample(1)], [1], "me", "d1") == [shard] == read_index(run, "me", "d1")


@pytest.mark.parametrize("damaged", [lambda data: data[:100], lambda data: bytes(len(data)), lambda data: b""])
def test_damaged_index_is_written_again_from_its_sealed_copy(tmp_path, damaged):
    run = RunFolder(str(tmp_path))
    shards = write_shards(run, map(sample, range(7)), even_sizes(7, 3), "me", "d1")
    index = run.get("shards/index.parquet")
    run.put("shards/index.parquet", damaged(index))
    assert read_refs(run) == read_index(run, "me", "d1") == shards
    assert run.get("shards/index.parquet") == index


def test_every_flipped_bit_of_an_index_is_noticed(tmp_path):
    run = RunFolder(str(tmp_path))
    shards = write_shards(run, [sample(1)], [1], "me", "d1")
    index = run.get("shards/index.parquet")
    for position in range(0, len(index), 7):
        flipped = bytearray(index)
        flipped[position] ^= 1 << (position % 8)
        run.put("shards/index.parquet", bytes(flipped))
        assert read_index(run, "me", "d1") == shards
    run.put("shards/index.parquet", index[:-1])
    run.put("shards/000000.tar", b"no tar")
    assert read_index(run, "me", "d1") is None


@pytest.mark.parametrize("agrees", [True, False])
def test_what_was_written_down_of_the_index_is_written_again_where_the_tars_agree(tmp_path, agrees):
    run = RunFolder(str(tmp_path))
    shards = write_shards(run, [sample(1)], [1], "me", "d1")
    run.put(f"{MARK}/shards.json", b"{")
    if not agrees:
        run.put("shards/000000.tar", pack([sample(2)]))
    assert read_index(run, "me", "d1") == (shards if agrees else None)
    index = run.get("shards/index.parquet")
    run.put("shards/index.parquet", b"")
    assert (read_index(run, "me", "d1") == shards) == agrees
    assert (run.get("shards/index.parquet") == index) == agrees


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:-30] + bytes(30)])
def test_damaged_index_of_a_version_without_a_record_is_written_again(tmp_path, damage):
    run = RunFolder(str(tmp_path))
    shards = write_shards(run, [sample(1)], [1], "me", "d1")
    run.delete(f"{MARK}/shards.json")
    run.put("shards/index.parquet", damage(run.get("shards/index.parquet")))
    assert read_index(run, "me", "d1") is None
    assert write_shards(run, [sample(1)], [1], "me", "d1") == shards


def test_tar_that_somebody_put_among_ours_is_not_written_over(tmp_path):
    run = RunFolder(str(tmp_path))
    write_shards(run, [sample(1)], [1], "me", "d1")
    run.put("shards/000001.tar", b"mine")
    with pytest.raises(ForeignFilesError, match=r"000001\.tar' is there"):
        write_shards(run, map(sample, range(2)), [1, 1], "me", "d2")
    assert run.get("shards/000001.tar") == b"mine"


def test_tars_that_a_killed_run_left_are_written_over(tmp_path):
    run = RunFolder(str(tmp_path))
    write_shards(run, map(sample, range(2)), [1, 1], "me", "d1")
    for file in ("shards/index.parquet", f"{MARK}/shards.json"):
        run.delete(file)
    assert len(write_shards(run, map(sample, range(2, 4)), [1, 1], "me", "d1")) == 2


def test_missing_tar_makes_the_shards_be_written_again(tmp_path):
    run = RunFolder(str(tmp_path))
    write_shards(run, [sample(1)], [1], "me", "d1")
    run.delete("shards/000000.tar")
    assert read_index(run, "me", "d1") is None


def test_tars_of_somebody_else_are_not_written_over(tmp_path):
    run = RunFolder(str(tmp_path))
    run.put("shards/000000.tar", b"mine")
    with pytest.raises(ForeignFilesError, match=r"000000\.tar' is there and was not written by this run"):
        write_shards(run, [sample(1)], [1], "me", "d1")
    assert run.get("shards/000000.tar") == b"mine"


def test_no_samples_is_a_source_error(tmp_path):
    with pytest.raises(SourceError, match="no pictures found in me"):
        write_shards(RunFolder(str(tmp_path)), [], [1], "me", "d")


def tar_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(("samples", "shards"), [(1, 1), (10, 4), (3, 8), (200, 7)])
def test_sizes_add_up_and_differ_by_at_most_one(samples, shards):
    sizes = even_sizes(samples, shards)
    assert sum(sizes) == samples
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == min(samples, shards)


def test_shard_is_closed_early_when_its_pictures_are_large(tmp_path, monkeypatch):
    monkeypatch.setattr("pnp_core.storage.shards.MAX_SHARD_BYTES", 100)
    begin = b"\xff\xd8\xff"
    samples = [Sample(f"k{i}", begin.ljust(size), "jpg", "s") for i, size in enumerate((40, 40, 40, 200, 10, 10))]
    shards = write_shards(RunFolder(str(tmp_path)), samples, [5, 5], "me", "d")
    assert [s.samples for s in shards] == [3, 1, 1, 1]


def test_what_is_no_picture_is_set_aside_without_its_bytes(tmp_path):
    run, secret = RunFolder(str(tmp_path)), b"the password is swordfish\n"
    samples = [Sample("p", b"\xff\xd8\xff damaged", "jpg", "p.jpg"), Sample("s", secret, "none", "/etc/secret")]
    (shard,) = write_shards(run, samples, [2], "me", "d")
    kept, refused = read_shard(run, shard)
    assert kept == samples[0]
    assert (refused.source, refused.image) == ("/etc/secret", b"")
    assert refused.fault == "not a picture in a known format: by its first bytes it is text"
    assert not any(secret[:10] in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
