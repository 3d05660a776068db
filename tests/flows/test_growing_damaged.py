"""What `label-corpus` published and what is then lost or damaged is made again, or named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pnp_core.checks.output import verify
from tests.flows.growing import image, labelled_in, latest, put, run


def test_batch_of_a_run_that_was_killed_is_finished_before_anything_else(corpus):
    """The state such a run leaves: shards that count, no manifest."""
    folder, out = corpus
    put(folder, "a.png", image(1))
    run(folder, out)
    for file in (out / "latest.json", out / "progress.json", out / "manifests/000001.parquet"):
        file.unlink()
    for record in out.rglob("masks/*/*.done.json"):
        record.unlink()
    salience = {f: f.stat().st_ino for f in out.rglob("salience/*/*.done.json")}
    put(folder, "b.png", image(2))
    summary = run(folder, out)
    assert (summary["labelled"], summary["pictures"]) == (2, 2)
    assert (labelled_in(out, 1), labelled_in(out, 2)) == ({"a.png"}, {"b.png"})
    assert {f: f.stat().st_ino for f in salience} == salience


def test_lost_progress_is_taken_from_what_was_published(corpus):
    folder, out = corpus
    put(folder, "a.png", image(1))
    run(folder, out)
    (out / "progress.json").unlink()
    put(folder, "b.png", image(2))
    assert (run(folder, out)["labelled"], latest(out)[0]["run"]) == (1, 2)


def test_lost_pointers_are_refused_and_nothing_is_overwritten(corpus):
    folder, out = corpus
    put(folder, "a.png", image(1))
    run(folder, out)
    for name in ("progress.json", "latest.json"):
        (out / name).write_bytes(b"{")
    manifest = (out / "manifests/000001.parquet").read_bytes()
    assert "progress.json' is missing or damaged" in " ".join(run(folder, out, code=1)["said"].split())
    assert (out / "manifests/000001.parquet").read_bytes() == manifest


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("damaged", ["manifests/000002.parquet", "contents/000002.parquet"])
def test_damaged_manifest_is_made_again_from_the_batches(corpus, damaged):
    folder, out = corpus
    for number, name in enumerate(("a.png", "b.png")):
        put(folder, name, image(number))
        run(folder, out)
    before = {name: files_of(out)[name] for name in ("latest.json", "manifests/000002.parquet")}
    (out / damaged).write_bytes(b"PAR1")
    assert run(folder, out)["labelled"] in (0, 1)
    assert {name: files_of(out)[name] for name in before} == before


def test_manifest_of_a_long_run_is_written_whole_now_and_then(corpus, tmp_path):
    folder, out = corpus
    for number in range(6):
        put(folder, f"{number}.png", image(number))
    (tmp_path / "c.yaml").write_text("images_per_batch: 1")
    assert run(folder, out, "--config", str(tmp_path / "c.yaml"))["labelled"] == 6
    files = {kind: sorted(int(f.stem) for f in (out / kind).iterdir()) for kind in ("manifests", "changes")}
    assert files == {"manifests": [1, 2, 4, 6], "changes": [3, 5, 6]}
    before = files_of(out)
    (out / "manifests/000006.parquet").unlink()
    assert run(folder, out)["labelled"] == 0
    for name in ("manifests/000006.parquet", "latest.json"):
        assert (out / name).read_bytes() == before[name]


def test_manifest_of_an_earlier_run_that_is_gone_stays_named(corpus):
    folder, out = corpus
    for number, name in enumerate(("a.png", "b.png")):
        put(folder, name, image(number))
        run(folder, out)
    (out / "manifests/000001.parquet").unlink()
    run(folder, out)
    assert [problem.path for problem in verify(str(out)).problems] == ["manifests/000001.parquet"]


def test_damaged_masks_that_were_published_are_made_again(corpus):
    folder, out = corpus
    put(folder, "a.png", image(1))
    run(folder, out)
    (masks,) = out.glob("batches/000001/masks/*/*.parquet")
    whole = masks.read_bytes()
    masks.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    manifest = latest(out)[0]
    found = run(folder, out)
    assert found["mended"] == [str(masks.relative_to(out))]
    assert (masks.read_bytes(), latest(out)[0]) == (whole, manifest)


def test_published_masks_that_cannot_be_made_again_are_named_and_hold_nothing_up(corpus):
    folder, out = corpus
    put(folder, "a.png", image(1))
    run(folder, out)
    next(out.glob("batches/000001/masks/*/*.parquet")).unlink()
    next(out.glob("batches/000001/salience/*/*.safetensors")).unlink()
    (out / "batches/000001/shards/000000.tar").write_bytes(b"")
    put(folder, "b.png", image(2))
    said = run(folder, out, code=1)["said"]
    assert "000000.tar' is damaged" in said
    assert latest(out)[0]["labelled"] == 2


@pytest.mark.ops
def test_shard_that_fails_in_every_run_holds_nothing_else_up(corpus, tmp_path):
    folder, out = corpus
    put(folder, "a.png", image(1))
    run(folder, tmp_path / "warm")  # the model is loaded
    put(folder, "b.png", image(2, (1500, 1500)))  # with the slow CRF several seconds
    (tmp_path / "c.yaml").write_text(
        "{images_per_shard: 1, salience: {candidates: {source: vocabulary}}, masks: {crf: {name: dense}},"
        " dispatch: {attempts: 1, shard_seconds: 1}}"
    )
    options = ("--config", str(tmp_path / "c.yaml"))
    for number in (1, 2):
        put(folder, f"new{number}.png", image(10 + number))
        summary = run(folder, out, *options)
        assert (summary["failed"], latest(out)[1]["b.png"]["status"]) == (1, "failed")
        assert latest(out)[1][f"new{number}.png"]["status"] == "labelled"
