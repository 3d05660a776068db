"""Parquet files with pictures."""

import io
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pnp_core.errors import SourceError
from pnp_core.records import Sample
from pnp_core.sources import open_source


def png(side: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, format="PNG")
    return buffer.getvalue()


def samples(path, **columns) -> list[Sample]:
    column = columns.pop("column", None)
    pq.write_table(pa.table(columns), path, row_group_size=columns and 2)
    return list(open_source(str(path), image_column=column).samples())


def test_hugging_face_pictures_with_bytes_or_paths(tmp_path):
    (tmp_path / "there.png").write_bytes(png())
    image = [
        {"bytes": png(), "path": "a/b c.png"},
        {"bytes": None, "path": "there.png"},
        {"bytes": None, "path": "gone.png"},
        {"bytes": None, "path": None},
        None,
    ]
    found = samples(tmp_path / "x.parquet", image=image, label=[1, 2, 3, 4, 5])
    assert [s.image == png() for s in found] == [True, True, False, False, False]
    assert "No such file" in (found[2].fault or "")
    assert found[3].fault == found[4].fault == "column 'image' is empty in this row"
    assert [s.source for s in found[:2]] == ["x.parquet!0 (a/b c.png)", "x.parquet!1 (there.png)"]
    assert [s.extension for s in found[:2]] == ["png", "png"]
    assert len({s.key for s in found}) == 5


def test_bytes_with_keys(tmp_path):
    found = samples(tmp_path / "x.parquet", id=["k1", "k 2", "k1", None], picture=[png()] * 4)
    assert found[0].key == "k1"
    assert len({s.key for s in found}) == 4
    assert all(s.fault is None for s in found)


def test_paths_in_a_text_column(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/1.png").write_bytes(png())
    found = samples(tmp_path / "x.parquet", where=["p/1.png", f"{tmp_path}/p/1.png"], key=["a", "b"])
    assert [(s.key, s.fault) for s in found] == [("a", None), ("b", None)]


def test_numbers_as_keys_and_several_files(tmp_path):
    for name in ("0", "1"):
        pq.write_table(pa.table({"id": [7, 8], "image": [png(), png()]}), tmp_path / f"{name}.parquet")
    found = list(open_source(str(tmp_path / "*.parquet")).samples())
    assert len({s.key for s in found}) == 4
    assert found[0].key == "7"


def test_column_is_asked_for_when_it_cannot_be_told(tmp_path):
    values = {"left": [png()], "right": [png(5)], "n": [1]}
    with pytest.raises(SourceError, match=r"several may be: left, right; say so with --image-column"):
        samples(tmp_path / "x.parquet", **values)
    assert samples(tmp_path / "x.parquet", column="right", **values)[0].image == png(5)
    with pytest.raises(SourceError, match="no column 'n' of pictures; columns: left, right, n"):
        samples(tmp_path / "x.parquet", column="n", **values)
    with pytest.raises(SourceError, match="which column"):
        samples(tmp_path / "x.parquet", n=[1])


def test_damaged_row_group_costs_its_rows_only(tmp_path):
    image = [{"bytes": bytes([i]) * 5000, "path": f"{i}.png"} for i in range(6)]
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": image}), path, row_group_size=2, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[start : start + 30] = b"\xff" * 30
    path.write_bytes(bytes(data))
    found = list(open_source(str(path)).samples())
    assert len(found) == 6
    assert [s.fault is None for s in found] == [True, True, False, False, True, True]
    assert "row group 1 is damaged" in (found[2].fault or "")


def test_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "x.parquet").write_text("hello")
    with pytest.raises(SourceError, match="is not a Parquet file"):
        open_source(str(tmp_path / "x.parquet"))


def test_text_that_is_not_utf8_costs_its_row_only(tmp_path):
    buffers = [None, pa.py_buffer(struct.pack("<3i", 0, 3, 4)), pa.py_buffer(b"\xff\xfe\xfdb")]
    names = pa.Array.from_buffers(pa.string(), 2, buffers)
    found = samples(tmp_path / "x.parquet", image=[png(), png()], id=names)
    assert [s.fault is None for s in found] == [False, True]
    assert found[1].key == "b"


@pytest.mark.parametrize("name", ["key", "fault", "a.b"])
def test_column_may_have_any_name(tmp_path, name):
    (found,) = samples(tmp_path / "x.parquet", column=name, **{name: [png()]})
    assert found.image == png()
    assert found.source == "x.parquet!0 (x.parquet_0)"


def test_coded_paths_are_followed_and_the_digest_follows_the_pictures(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    (found,) = samples(tmp_path / "x.parquet", image=pa.array(["a.png"]).dictionary_encode())
    assert found.image == png()
    hybrid = [{"bytes": png(), "path": "gone.png"}, {"bytes": None, "path": "a.png"}]
    pq.write_table(pa.table({"image": hybrid}), tmp_path / "y.parquet")
    sources = [open_source(str(tmp_path / name)) for name in ("x.parquet", "y.parquet")]
    before = [source.digest() for source in sources]
    assert [source.digest() for source in sources] == before
    (tmp_path / "a.png").write_bytes(png(9))
    assert all(source.digest() != digest for source, digest in zip(sources, before, strict=True))


def test_table_without_rows_is_refused(tmp_path):
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match="has no rows"):
        open_source(str(tmp_path / "x.parquet"))
