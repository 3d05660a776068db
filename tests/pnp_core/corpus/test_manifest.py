"""A manifest that is written whole now and then, and its changes in between."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from pnp_core.corpus.manifest import (
    GONE,
    LABELLED,
    PROGRESS,
    QUARANTINED,
    WAITING,
    Manifest,
    ManifestRow,
    changes_file,
    read_progress,
    rows_bytes,
)
from pnp_core.storage.run_folder import RunFolder

MASKS = "batches/000001/masks/0123/000000.parquet"
ROWS = st.builds(
    ManifestRow,
    source=st.sampled_from(["a.png", "b.png", "c/d.png", "e.png"]),
    stamp=st.sampled_from(["", "1/2/3"]),
    sha256=st.sampled_from(["1" * 64, "2" * 64, "3" * 64]),
    status=st.sampled_from([LABELLED, QUARANTINED, WAITING, GONE]),
    masks=st.just(MASKS),
    key=st.sampled_from([None, "a-1"]),
)


@given(st.lists(st.lists(ROWS, min_size=1, max_size=4), min_size=1, max_size=6))
def test_what_is_read_is_what_was_known_whenever_it_was_written_whole(batches):
    with TemporaryDirectory() as folder:
        out = RunFolder(folder)
        manifest = Manifest(0, "somewhere", "0123")
        for number, changes in enumerate(batches, start=1):
            manifest = manifest.after(number, changes)
            if manifest.due():
                manifest = manifest.write(out)
            else:
                out.write(changes_file(number), rows_bytes(changes))
            pointer = {"run": number, "source": "somewhere", "settings": "0123", "manifest": manifest.file}
            out.write_json(PROGRESS, pointer)
            assert read_progress(out) == manifest


def test_so_many_batches_write_little_more_than_the_last_manifest_twice(tmp_path: Path):
    out, manifest, written = RunFolder(str(tmp_path)), Manifest(0, "x", "0123"), 0
    for number in range(1, 65):
        rows = [ManifestRow(f"{number}-{i}", "", f"{number}-{i}", LABELLED, MASKS, "k") for i in range(4)]
        manifest = manifest.after(number, rows)
        written += len(rows)
        if manifest.due():
            written += len(manifest.images)
            manifest = manifest.write(out)
    assert (len(manifest.images), written) == (256, 256 + 4 * (1 + 2 + 4 + 8 + 16 + 32 + 64))


def test_changes_without_those_before_them_are_not_taken(tmp_path: Path):
    out = RunFolder(str(tmp_path))
    rows = [ManifestRow(f"{i}", "", f"{i}", LABELLED, MASKS, "k") for i in range(8)]
    manifest = Manifest(0, "x", "0123").after(1, rows[:6]).write(out)
    for number, row in ((2, rows[6]), (3, rows[7])):
        manifest = manifest.after(number, [row])
        out.write(changes_file(number), rows_bytes([row]))
    out.write_json(PROGRESS, {"run": 3, "source": "x", "settings": "0123", "manifest": manifest.file})
    assert read_progress(out) == manifest
    (tmp_path / changes_file(2)).unlink()
    found = read_progress(out)
    assert found
    assert (found.number, list(found.images)) == (1, [row.source for row in rows[:6]])
