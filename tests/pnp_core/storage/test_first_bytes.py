"""What is a picture by its first bytes, and what is not."""

import io
import json
import sqlite3
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from pnp_core.data import Sample
from pnp_core.errors import UnreadableImage
from pnp_core.inputs.images import decode_image
from pnp_core.storage.first_bytes import FORMATS, only_images, refusal

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F")


def written(image: Image.Image, **how) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **how)
    return buffer.getvalue()


def test_every_format_that_is_read_can_be_written_here():
    Image.init()
    assert set(FORMATS) <= set(Image.SAVE)


@given(st.sampled_from(FORMATS), st.sampled_from(MODES), st.integers(1, 40), st.integers(1, 40))
def test_every_picture_that_pillow_writes_passes(name, mode, width, height):
    try:
        data = written(Image.new(mode, (width, height), 1), format=name)
    except (OSError, KeyError, ValueError, TypeError, AttributeError):  # not every mode goes into every format
        return
    assert refusal(data) is None


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("TIFF", {"big_tiff": True}),
        ("TIFF", {"compression": "jpeg"}),
        ("JPEG2000", {"no_jp2": True}),
        ("WEBP", {"lossless": True}),
        ("GIF", {"save_all": True, "append_images": [Image.new("RGB", (5, 4), (9, 9, 9))]}),
        ("AVIF", {"save_all": True, "append_images": [Image.new("RGB", (5, 4), (9, 9, 9))]}),
    ],
)
def test_variants_of_a_format_pass(name, how):
    assert refusal(written(Image.new("RGB", (5, 4)), format=name, **how)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"P1\n# drawn by hand\n2 2\n0 1 1 0\n",
        b"P2 2 1\n# greatest\n255 0 9",
        b"P3\r\n1 1\r\n255\r\n1 2 3\r\n",
        b"P4 8 1\n\x00",
        b"P5\n1 1 255\n\x00",
        b"P6 # a\n# b\n 1\t1 65535\n\x00\x00\x00\x00\x00\x00",
        b"Pf\n1 1\n-1.0\n\x00\x00\x80?",
        b"P7\n# a\nWIDTH 1\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n\x00\x00\x00",
    ],
)
def test_all_portable_maps_pass(data):
    assert refusal(data) is None


@given(st.text(min_size=1, max_size=3000))
def test_text_never_passes(text):
    data = text.encode("utf-8", "surrogatepass")
    assume(data.strip(b"\0"))
    why = refusal(data)
    assert why is not None
    assert "\n" not in why


@given(
    st.sampled_from(["P1 ", "P3\n", "P6 is", "BM", "BMW ", "GIF", "II*", "MM", "RIFF", "    ftyp", "(", "Pf"]),
    st.text(),
)
def test_text_that_begins_with_a_formats_letters_does_not_pass(start, text):
    assume(not any(character.isdigit() for character in text[:20]))
    assume("\0" not in text)
    assert refusal((start + text).encode("utf-8", "surrogatepass")) is not None


@given(st.binary(max_size=200))
def test_what_is_refused_pillow_cannot_read_either(data):
    if refusal(data) is not None:
        with pytest.raises(Exception):  # noqa: B017, PT011 - nearly any type
            Image.open(io.BytesIO(data), formats=FORMATS).load()


def sqlite_file(folder) -> bytes:
    connection = sqlite3.connect(folder / "x.db")
    connection.execute("create table a (b)")
    connection.commit()
    connection.close()
    return (folder / "x.db").read_bytes()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "hello")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda _: b"", "empty file (0 bytes)"),
        (lambda _: b"root:x:0:0:root:/root:/bin/sh\n", "by its first bytes it is text"),
        (lambda _: "naïve\n".encode("utf-16"), "it is text"),
        (lambda _: json.dumps({"a": 1}).encode(), "it is text"),
        (lambda _: ("é" * 1000).encode()[:-1], "it is text"),
        (lambda _: b"<!DOCTYPE html><title>404</title>", "a web page (HTML)"),
        (lambda _: b'<?xml version="1.0"?><svg xmlns="x"/>', "an SVG drawing"),
        (lambda _: b"<?xml version='1.0'?><a/>", "it is XML"),
        (lambda _: b"version https://git-lfs.example/spec/v1\noid sha256:0\n", "git-lfs pointer"),
        (lambda _: b"/annex/objects/SHA256E-s1--0.jpg\n", "git-annex pointer"),
        (lambda _: zipped(), "a ZIP archive"),
        (lambda _: tarred(), "a tar archive"),
        (sqlite_file, "a SQLite database"),
        (lambda _: written(Image.new("RGB", (4, 4)), format="PDF"), "a PDF document"),
        (lambda _: written(Image.new("RGB", (4, 4)), format="EPS"), "PostScript"),
        (lambda _: written(Image.new("RGB", (4, 4)), format="ICO"), "a Windows icon"),
        (lambda _: np.lib.format.magic(1, 0) + b"{}", "a NumPy array"),
        (lambda _: bytes(5000), "nothing but zeros"),
        (lambda _: b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "an MP4 or QuickTime video"),
        (lambda _: b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic", "HEIF/HEIC is not supported"),
        (lambda _: b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "macOS side-car"),
        (lambda _: b"RIFF\x24\x00\x00\x00WAVEfmt ", "sound or video (RIFF)"),
        (lambda _: struct.pack("<IiiHH", 40, 1, 1, 7, 24), "its first bytes are no picture's"),
    ],
)
def test_what_it_is_instead_is_said(tmp_path, make, says):
    data = make(tmp_path)
    assert says in (refusal(data) or "")
    with pytest.raises(UnreadableImage) as error:
        decode_image(data, 10**8)
    assert says in str(error.value)


def test_file_whose_main_brand_is_heifs_may_be_avif():
    assert refusal(b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1avifmiaf") is None


def test_hostile_pictures_are_kept_and_the_others_said(shared_data):
    files = sorted(path for path in (shared_data / "hostile").iterdir())
    samples = [Sample(str(number), file.read_bytes(), "x", file.name) for number, file in enumerate(files)]
    refused = {sample.source for sample in only_images(samples) if sample.fault is not None}
    assert refused == {"._applefile.jpg", "text_named.jpg", "unreadable.heif"}
    assert all(bool(s.image) == (s.source not in {*refused, "zero_byte.jpg"}) for s in only_images(samples))


def test_fault_of_a_source_stays():
    sample = Sample("a", b"", "jpg", "a.jpg", fault="cannot be read: Permission denied")
    assert list(only_images([sample])) == [sample]
