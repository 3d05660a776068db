"""`label` on corpora nobody curated: everything is accounted for, whatever it is."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from pnp_core.inputs.images import decode_image, decode_label_map

runner = CliRunner()


def label(source: Path | str, out: Path, *options: str, code: int = 0) -> dict:
    command = ["label", str(source), "--classes", "car,key", "--out", str(out), "--preset", "tiny", "--json", *options]
    result = runner.invoke(app, command)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


def rows_of(result: dict) -> list[dict]:
    return [row for f in sorted(Path(result["masks"]).glob("*.parquet")) for row in pq.read_table(f).to_pylist()]


def quarantine_of(result: dict) -> list[dict]:
    files = sorted((Path(result["out"]) / "quarantine").rglob("*.parquet"))
    return [row for f in files for row in pq.read_table(f).to_pylist()]


# Behaviour of Pillow alone loads this one after a failed first look, as half a picture.
REFUSED = {
    "._applefile.jpg": "macOS side-car",
    "bomb_30000x30000.png": "decompression bomb",
    "broken_chunk.png": "not a picture in a known format",
    "broken_data_stream.png": "unrecognized data stream",
    "crash_fuzz.tif": "cannot be decoded",
    "decompression_bomb.gif": "decompression bomb",
    "png_text_chunk_dos.png": "Decompressed data too large",
    "text_named.jpg": "not a picture in a known format",
    "truncated.png": "truncated",
    "truncated_progressive.jpg": "truncated",
    "unreadable.heif": "HEIF/HEIC is not supported",
    "zero_byte.jpg": "empty file",
}


NO_IMAGES = ("._applefile.jpg", "text_named.jpg", "unreadable.heif")


def test_all_hostile_pictures_are_labelled_or_quarantined_in_bounded_memory(shared_data, tmp_path):
    command = [sys.executable, "-m", "flows.cli", "label", str(shared_data / "hostile"), "--classes", "car,key"]
    command += ["--candidates", "vocabulary", "--out", str(tmp_path / "out"), "--preset", "tiny", "--json"]
    watcher = (
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    environment = {**os.environ}
    done = subprocess.run([sys.executable, "-c", watcher, *command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "50 pictures: 38 labelled (0 of them in an earlier run), 12 quarantined" in done.stderr
    assert "warning: quarantined pictures, by reason:" in done.stderr
    result, peak = done.stdout.strip().splitlines()[-2:]
    assert int(peak) < 4 * 1024**2, "peak memory in KiB"
    result = json.loads(result)
    assert (result["images"], result["labelled"], result["quarantined"]) == (50, 38, 12)
    labelled, refused = rows_of(result), quarantine_of(result)
    names = [row["source"] for row in labelled + refused]
    assert sorted(names) == sorted(f.name for f in (shared_data / "hostile").iterdir())
    assert {row["source"] for row in refused} == set(REFUSED)
    for row in refused:
        assert REFUSED[row["source"]] in row["reason"]
        # What is no picture by its first bytes is not even put into a shard.
        assert row["stage"] == ("shard" if row["source"] in NO_IMAGES else "salience")
    for row in labelled:
        image = decode_image((shared_data / "hostile" / row["source"]).read_bytes(), 10**8)
        assert decode_label_map(row["mask"]["bytes"]).shape == image.pixels.shape[:2], row["source"]
        assert row["notes"] == list(image.notes)


def test_strict_fails_a_run_with_quarantined_pictures_only(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "in/a.png")
    assert label(tmp_path / "in", tmp_path / "out", "--strict")["quarantined"] == 0
    (tmp_path / "in/b.png").write_bytes(b"")
    assert label(tmp_path / "in", tmp_path / "out")["quarantined"] == 1
    assert label(tmp_path / "in", tmp_path / "out", "--strict", code=1)["quarantined"] == 1


def test_size_limit_is_configurable(tmp_path):
    (tmp_path / "in").mkdir()
    for side in (10, 20):
        Image.new("RGB", (side, side)).save(tmp_path / f"in/{side}.png")
    result = label(tmp_path / "in", tmp_path / "out", "--max-pixels", "150")
    assert [row["key"] for row in rows_of(result)] == ["10"]
    assert result["reasons"] == {"20x20 pixels are over the limit of 150": 1}


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("-a b.png", "ü.png", "x" * 200 + ".png"):
        Image.fromarray(rng.integers(0, 255, (16, 24, 3), dtype=np.uint8)).save(folder / name)
    return folder


def masks_of(result: dict) -> list[bytes]:
    return sorted(row["mask"]["bytes"] for row in rows_of(result))


def test_list_table_and_tar_of_the_same_pictures_give_the_same_masks(images, tmp_path):
    expected = masks_of(label(images, tmp_path / "folder"))
    assert len(expected) == 3
    names = sorted(f.name for f in images.iterdir())
    (images / "all.txt").write_text("\n".join(names))
    assert masks_of(label(images / "all.txt", tmp_path / "list")) == expected
    image = [{"bytes": (images / name).read_bytes(), "path": name} for name in names]
    pq.write_table(pa.table({"image": image}), tmp_path / "all.parquet")
    assert masks_of(label(tmp_path / "all.parquet", tmp_path / "table")) == expected
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for name in names:
            tar.add(images / name, name)
    assert masks_of(label(tmp_path / "all.tar", tmp_path / "tar")) == expected


def test_corrupt_tar_loses_only_what_is_corrupt_and_says_so(images, tmp_path):
    with tarfile.open(tmp_path / "all.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, name in enumerate(sorted(f.name for f in images.iterdir())):
            tar.add(images / name, f"{number}.png")
    with tarfile.open(tmp_path / "all.tar") as tar:
        second = tar.getmembers()[1].offset
    data = bytearray((tmp_path / "all.tar").read_bytes())
    data[second : second + 100] = bytes(range(100))
    (tmp_path / "all.tar").write_bytes(bytes(data))
    result = label(tmp_path / "all.tar", tmp_path / "out")
    assert [row["key"] for row in rows_of(result)] == ["0", "2"]
    (lost,) = quarantine_of(result)
    assert lost["stage"] == "shard"
    assert f"the tar is damaged from byte {second} to" in lost["reason"]


def test_mask_matches_what_a_viewer_shows(shared_data, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(shared_data / "hostile/exif_orientation_6_nonsquare_photo.jpg", tmp_path / "in/turned.jpg")
    (row,) = rows_of(label(tmp_path / "in", tmp_path / "out"))
    assert (row["width"], row["height"]) == (451, 300)
    assert row["notes"] == ["EXIF orientation applied"]


def test_picture_with_none_of_the_classes_is_all_background(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (30, 20), (128, 128, 128)).save(tmp_path / "in/empty.png")
    (row,) = rows_of(label(tmp_path / "in", tmp_path / "out", "--min-score", "0.999"))
    assert (row["classes"], row["chosen"]) == ([], "itm, no class: all background")
    assert not decode_label_map(row["mask"]["bytes"]).any()


WILD = ("planar16-tiff", "rgbnir-as-alpha", "gray12-in-16", "icc-profile", "tiff-multiband-reason", "pgm-folder")


def test_pictures_that_programs_write_are_labelled_and_what_was_done_is_told(shared_data, tmp_path):
    for name in WILD:
        shutil.copytree(shared_data / "wild" / name, tmp_path / "in" / name)
    (tmp_path / "in/@eaDir/pgm-folder").mkdir(parents=True)
    shutil.copy(shared_data / "wild/pgm-folder/x.pbm", tmp_path / "in/@eaDir/pgm-folder/x.pbm")
    shutil.copy(shared_data / "wild/icc-profile/icc_swapped_rgb.jpg", tmp_path / "in/cat.jpg?w=640")
    (tmp_path / "c.yaml").write_text("exclude: [s1_2.*]")
    result = label(
        tmp_path / "in", tmp_path / "out", "--candidates", "vocabulary", "--config", str(tmp_path / "c.yaml")
    )
    told = {row["source"]: " / ".join(row["notes"]) for row in rows_of(result)}
    assert told == {
        "cat.jpg?w=640": "colours converted to sRGB by the embedded profile",
        "gray12-in-16/gray_12bit_in_16.png": "brightness scaled to 8 bits / brightest value 3088: taken for 12 bits",
        "icc-profile/icc_swapped_rgb.jpg": "colours converted to sRGB by the embedded profile",
        "pgm-folder/s1_1.pgm": "",
        "pgm-folder/x.pbm": "",
        "planar16-tiff/plain.jpg": "",
        "planar16-tiff/rgb_uint16_planar_full.tif": "brightness scaled to 8 bits",
        "rgbnir-as-alpha/aerial_rgbnir_gdal_alpha.tif": (
            "band 4 of 4 is said to be opacity and is a picture: left out"
        ),
        "tiff-multiband-reason/rgb_float32.tif": "brightness scaled to 8 bits",
    }
    assert result["quarantined"] == 0
