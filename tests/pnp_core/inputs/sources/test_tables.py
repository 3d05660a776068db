"""Parquet files with pictures."""

import base64
import io
import struct
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pnp_core.data import Sample
from pnp_core.errors import SourceError
from pnp_core.inputs.sources import open_source


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
    found = samples(tmp_path / "x.parquet", id=["k1", "k 2", "k1", None], image=[png()] * 4)
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


def test_every_picture_of_a_list_is_taken(shared_data):
    path = shared_data / "wild/list-of-images-parquet/list_image.parquet"
    expected = [image["bytes"] for row in pq.read_table(path).to_pylist() for image in row["images"]]
    found = list(open_source(str(path)).samples())
    assert [s.image for s in found] == expected
    assert len({s.key for s in found}) == len(found)
    assert [s.image for s in open_source(str(path), image_column="images").samples()] == expected


def test_pictures_of_a_list_are_named_by_row_and_number(tmp_path):
    (tmp_path / "there.png").write_bytes(png(7))
    images = [[{"bytes": png(), "path": "same.png"}, {"bytes": None, "path": "there.png"}], [], [None]]
    found = samples(tmp_path / "x.parquet", images=images, id=["a", "b", "c"])
    assert [(s.name, s.fault is None) for s in found] == [("a/0", True), ("a/1", True), ("c/0", False)]
    assert [s.key for s in found] == ["a__0", "a__1", "c__0"]
    assert found[1].image == png(7)
    (first, *_) = samples(tmp_path / "y.parquet", images=images)
    assert first.source == "y.parquet!0/0 (same.png)"


@pytest.mark.parametrize(
    "type_", [pa.list_(pa.binary()), pa.large_list(pa.large_binary()), pa.list_(pa.binary(), 2), pa.list_(pa.string())]
)
def test_lists_of_every_kind_hold_pictures(tmp_path, type_):
    values = [png(4), png(5)]
    if pa.types.is_string(type_.value_type):
        values = [base64.b64encode(value).decode() for value in values]
    found = samples(tmp_path / "x.parquet", images=pa.array([values], type_), text=["a caption"])
    assert [s.image for s in found] == [png(4), png(5)]


def test_base64_is_decoded(shared_data):
    path = shared_data / "wild/base64-parquet/b64.parquet"
    expected = [base64.b64decode(text) for text in pq.read_table(path)["image"].to_pylist()]
    found = list(open_source(str(path)).samples())
    assert [s.image for s in found] == expected
    assert all(len(s.key) < 40 and len(s.source) < 40 for s in found)


TEXT = base64.b64encode(png()).decode()


@pytest.mark.parametrize(
    "value",
    [
        f"data:image/png;base64,{TEXT}",
        f"data:image/png;charset=utf-8;base64,{TEXT}",
        f"data:image/png,{quote(png())}",
        base64.encodebytes(png()).decode(),
        base64.urlsafe_b64encode(png()).decode().rstrip("="),
        TEXT.encode(),
        {"bytes": TEXT, "path": None},
        {"bytes": None, "path": f"data:image/png;base64,{TEXT}"},
    ],
)
def test_pictures_written_as_text_are_decoded_in_every_spelling(tmp_path, value):
    found = samples(tmp_path / "x.parquet", image=[value], caption=["a cat"])
    assert [(s.image, s.fault) for s in found] == [(png(), None)]


def test_text_that_cannot_be_decoded_costs_its_row_only(tmp_path):
    found = samples(tmp_path / "x.parquet", image=[TEXT, "data:image/png;base64,%%%", None, "gone.png"])
    assert found[0].image == png()
    assert found[1].fault == "the row cannot be read: its data URI cannot be decoded: it is no base64"
    assert found[2].fault == "column 'image' is empty in this row"
    assert found[3].fault == "cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (["a dog on a lawn", "two cats"], "text such as 'a dog on a lawn'"),
        (['{"bytes": "..."}'], "JSON such as"),
        ([base64.b64encode(bytes(range(200))).decode()], "base64 of something that is no picture"),
        ([["tag", "another tag"]], "text such as 'tag'"),
    ],
)
def test_text_that_names_no_pictures_is_refused_in_one_line(tmp_path, values, what):
    for column in (None, "text"):
        with pytest.raises(SourceError, match=r"column 'text' of '.*x.parquet' holds " + what) as error:
            samples(tmp_path / "x.parquet", column=column, text=values)
        assert "no pictures, paths or URLs; columns: text" in str(error.value)
        assert "\n" not in str(error.value)


def test_column_of_urls_is_told_from_captions(tmp_path):
    pq.write_table(pa.table({"url": ["memory://none/a"], "caption": ["a cat"]}), tmp_path / "x.parquet")
    (found,) = open_source(str(tmp_path / "x.parquet")).samples()
    assert found.name == "memory://none/a"


def test_pointer_of_git_lfs_is_named(tmp_path):
    (tmp_path / "x.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(SourceError, match="is not a Parquet file: git-lfs pointer"):
        open_source(str(tmp_path / "x.parquet"))


def test_column_of_single_pictures_goes_before_lists_of_them(tmp_path):
    masks = pa.array([[png(), png()]], pa.list_(pa.binary()))
    (found,) = samples(tmp_path / "x.parquet", masks=masks, img=[png(5)])
    assert found.image == png(5)
    with pytest.raises(SourceError, match="several may be: img, masks, other"):
        samples(tmp_path / "x.parquet", img=[png()], masks=masks, other=[png()])
    with pytest.raises(SourceError, match="several may be: crops, masks"):
        samples(tmp_path / "x.parquet", crops=masks, masks=masks)
