"""`label-corpus` over a folder that grows: exactly what is new or changed is labelled, and nothing half-written."""

from __future__ import annotations

import csv
import hashlib
import os
import socket
import time
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from prefect import flow

from flows.cli import app
from flows.dispatch.stages import run_stages
from pnp_core.config import CorpusConfig
from pnp_core.corpus import Corpus
from pnp_core.data import RunSummary
from pnp_core.export import export_run
from pnp_core.inputs.sources.base import FileRef
from pnp_core.runs.plan import plan_label
from pnp_core.stages.config import DispatchConfig
from pnp_core.storage import weights
from tasks.corpus import Collected
from tests.flows.growing import OLD, TINY, image, labelled_in, latest, mask_of, put, run, runner
from tests.processes import somebody_writing_to


def test_three_runs_over_a_growing_folder_label_exactly_what_is_new_or_changed(corpus):
    folder, out = corpus
    for number in range(4):
        put(folder, f"day1/{number}.png", image(number))
    first = run(folder, out)
    assert (first["labelled"], first["waiting"], first["pictures"]) == (4, 0, 4)
    pointer, rows = latest(out)
    assert set(rows) == labelled_in(out, 1) == {f"day1/{number}.png" for number in range(4)}
    before = {f: f.read_bytes() for f in out.rglob("*.parquet")}

    put(folder, "day2/new.png", image(10))
    put(folder, "day1/0.png", image(11, (40, 20)))  # changed
    (folder / "day1/1.png").unlink()  # deleted
    put(folder, "day2/half.png", image(12)[:200], changed=time.time())  # still being written
    os.utime(folder / "day1/2.png")  # touched, of the same content
    os.utime(folder / "day1/2.png", (OLD + 5, OLD + 5))
    (folder / "day1/3.png").rename(folder / "day2/moved.png")
    second = run(folder, out)
    assert labelled_in(out, 2) == {"day2/new.png", "day1/0.png"}
    assert (second["labelled"], second["waiting"], second["quarantined"], second["deleted"]) == (2, 1, 0, 2)
    pointer, rows = latest(out)
    assert set(rows) == {"day1/0.png", "day1/2.png", "day2/new.png", "day2/moved.png", "day2/half.png"}
    assert (pointer["labelled"], pointer["waiting"], pointer["classes"]) == (4, 1, ["background", "heart", "star"])
    assert (rows["day2/half.png"]["status"], rows["day2/half.png"]["masks"]) == ("waiting", None)
    assert mask_of(out, rows["day1/0.png"]).shape == (40, 20)
    assert mask_of(out, rows["day2/moved.png"]).shape == (24, 32)
    assert {f: f.read_bytes() for f in before} == before, "what was published has changed"

    put(folder, "day2/half.png", image(12))  # now whole, and left alone
    third = run(folder, out)
    assert labelled_in(out, 3) == {"day2/half.png"}
    assert (third["labelled"], third["waiting"], third["deleted"]) == (1, 0, 0)

    fourth = run(folder, out)
    assert (fourth["labelled"], fourth["manifest"]) == (0, third["manifest"])
    assert not (out / "batches/000004").exists()


def test_broken_picture_is_quarantined_once_and_tried_again_when_it_changes(corpus):
    folder, out = corpus
    put(folder, "a.png", image(1))
    put(folder, "b.png", image(2)[:300])
    first = run(folder, out)
    assert (first["labelled"], first["quarantined"]) == (1, 1)
    assert "truncated" in latest(out)[1]["b.png"]["reason"]
    again = run(folder, out)
    assert (again["images"], again["pictures"]) == (0, 2)
    put(folder, "b.png", image(2), OLD + 1)
    assert run(folder, out)["labelled"] == 1
    assert latest(out)[1]["b.png"]["reason"] is None


def test_batches_are_published_one_by_one_until_none_is_left_and_weights_are_hashed_once(corpus, tmp_path, monkeypatch):
    folder, out = corpus
    digest, hashed = hashlib.file_digest, []
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: (hashed.append(file.name), digest(file, kind))[1])
    weights.file_digest.cache_clear()
    for number in range(5):
        put(folder, f"{number}.png", image(number))
    put(folder, "copy of 4.png", image(4))
    (tmp_path / "c.yaml").write_text("{images_per_batch: 2, images_per_shard: 1}")
    summary = run(folder, out, "--config", str(tmp_path / "c.yaml"))
    assert (summary["labelled"], summary["pictures"]) == (5, 6)
    assert [len(labelled_in(out, number)) for number in (1, 2, 3)] == [2, 2, 1]
    assert [Path(name).name for name in hashed].count("model.safetensors") == 1
    _, rows = latest(out)
    assert rows["copy of 4.png"]["masks"] == rows["4.png"]["masks"]


def test_other_settings_label_all_again_and_the_old_manifest_stays(corpus, tmp_path):
    folder, out = corpus
    put(folder, "a.png", image(1))
    first = run(folder, out)
    (tmp_path / "c.yaml").write_text("{masks: {threshold: 0.3}}")
    second = run(folder, out, "--config", str(tmp_path / "c.yaml"))
    assert (second["labelled"], second["manifest"]) == (1, "manifests/000002.parquet")
    assert pq.read_table(out / first["manifest"]).num_rows == 1


def test_bucket_grows_too(tmp_path):
    bucket = fsspec.filesystem("memory")
    bucket.pipe({"/grown/a.png": image(1), "/grown/b.png": image(2)})
    out = tmp_path / "out"
    assert run("memory://grown", out, "--settle", "0")["labelled"] == 2
    bucket.pipe("/grown/c.png", image(3))
    assert run("memory://grown", out, "--settle", "0")["labelled"] == 1
    assert run("memory://grown", out)["labelled"] == 0
    bucket.pipe("/grown/d.png", image(4))
    assert run("memory://grown", out)["waiting"] == 1
    bucket.rm("/grown", recursive=True)


def test_touched_picture_waits_and_keeps_its_mask(corpus):
    folder, out = corpus
    put(folder, "a.png", image(1))
    put(folder, "b.png", image(2))
    run(folder, out)
    _, before = latest(out)
    os.utime(folder / "a.png")
    assert run(folder, out)["waiting"] == 1
    os.utime(folder / "a.png", (OLD, OLD))
    assert run(folder, out)["images"] == 0
    _, after = latest(out)
    assert after["a.png"]["masks"] == before["a.png"]["masks"]


def test_picture_that_was_away_is_not_labelled_again(corpus):
    folder, out = corpus
    put(folder, "a.png", image(1))
    put(folder, "b.png", image(2))
    run(folder, out)
    (folder / "b.png").unlink()
    assert run(folder, out)["deleted"] == 1
    put(folder, "b.png", image(2))
    assert run(folder, out)["images"] == 0
    assert latest(out)[1]["b.png"]["status"] == "labelled"


def test_corpus_that_is_suddenly_empty_is_refused_unless_it_is_meant(corpus, tmp_path):
    folder, out = corpus
    put(folder, "a.png", image(1))
    first = run(folder, out)
    (folder / "a.png").unlink()
    assert "where there were 1: is it mounted?" in " ".join(run(folder, out, code=2)["said"].split())
    assert latest(out)[0]["manifest"] == first["manifest"]
    (tmp_path / "c.yaml").write_text("allow_empty: true")
    assert run(folder, out, "--config", str(tmp_path / "c.yaml"))["pictures"] == 0


def test_second_run_into_the_same_folder_is_refused(corpus):
    folder, out = corpus
    put(folder, "a.png", image(1))
    with somebody_writing_to(out, "corpus") as pid:
        said = " ".join(run(folder, out, code=2)["said"].split())
    assert f"another command is writing to '{out}' (process {pid} on {socket.gethostname()}, since 2" in said
    assert run(folder, out)["labelled"] == 1


def test_readers_see_the_old_generation_until_new_settings_are_through(corpus, tmp_path):
    folder, out = corpus
    for number in range(4):
        put(folder, f"{number}.png", image(number))
    first = run(folder, out)
    for file in folder.iterdir():
        os.utime(file, (OLD + 9, OLD + 9))
    batches = "{images_per_batch: 1, masks: {threshold: 0.3}}"
    (tmp_path / "c.yaml").write_text(batches)
    settings = {"preset": "tiny", "settings": str(tmp_path / "c.yaml")}
    config = CorpusConfig.model_validate(
        {"source": str(folder), "classes": ["heart", "star"], "out": str(out), **settings}
    )
    corpus = Corpus(config, plan_label(config))
    collected = Collected(corpus.number, corpus.plan(), *corpus.collect(retry=True))
    assert collected.more
    labelled = RunSummary(collected.plan.masks.out)
    label_batch(collected, labelled)
    corpus.publish(collected.number, collected.shards, collected.plan, collected.more)
    assert latest(out)[0]["manifest"] == first["manifest"]
    corpus.publish(collected.number, collected.shards, collected.plan, collected.more)  # again, as a retried task does
    final = run(folder, out, "--config", str(tmp_path / "c.yaml"))
    assert latest(out)[0]["manifest"] == final["manifest"] == "manifests/000005.parquet"
    assert (latest(out)[0]["labelled"], final["labelled"]) == (4, 3)


def test_what_happens_to_files_while_a_run_of_several_batches_is_at_work(corpus, tmp_path, monkeypatch):
    folder, out = corpus
    for number in range(4):
        put(folder, f"{number}.png", image(number))
    (tmp_path / "c.yaml").write_text("images_per_batch: 1")
    read, seen = FileRef.read, []

    def meddling(ref: FileRef) -> bytes:
        seen.append(ref.path)
        if len(seen) == 1:
            (folder / "2.png").unlink()
            (folder / "3.png").rename(folder / "moved.png")
            put(folder, "new.png", image(9))
        return read(ref)

    monkeypatch.setattr(FileRef, "read", meddling)
    done = run(folder, out, "--config", str(tmp_path / "c.yaml"))
    rows = {source: row["status"] for source, row in latest(out)[1].items()}
    assert rows == dict.fromkeys(["0.png", "1.png", "moved.png", "new.png"], "labelled")
    assert (done["labelled"], done["quarantined"]) == (4, 0)


def label_batch(collected: Collected, summary: RunSummary) -> None:
    """One batch, as the flow labels it."""

    @flow
    def one_batch() -> None:
        run_stages(collected.plan, collected.shards, summary, DispatchConfig())

    one_batch()


def test_empty_folder_is_published_as_empty(corpus):
    folder, out = corpus
    folder.mkdir()
    assert run(folder, out)["pictures"] == 0
    assert latest(out)[0]["pictures"] == 0


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda folder, out: None, "is no folder"),
        (lambda folder, out: put(folder.parent, folder.name, b"x"), "is no folder"),
        (lambda folder, out: (folder.mkdir(), put(out, "progress.json", b"{")), "is not empty ('progress.json')"),
        (
            lambda folder, out: (
                folder.mkdir(),
                run(folder.parent / "pictures", out),
            ),
            "holds labels of",
        ),
    ],
)
def test_corpus_that_cannot_be_is_one_clear_line(corpus, tmp_path, prepare, says):
    folder, out = corpus
    put(tmp_path / "pictures", "a.png", image(1))
    prepare(folder, out)
    result = runner.invoke(app, ["label-corpus", str(folder), "--classes", "heart", "--out", str(out), *TINY])
    assert result.exit_code in (1, 2)
    assert says in result.stderr
    assert result.stderr.count("error:") == 1


def test_corpus_is_exported_as_it_was_published_last(tmp_path):
    corpus, out = tmp_path / "in", tmp_path / "out"
    for name, seed in (("a.png", 1), ("b.png", 2)):
        put(corpus, name, image(seed))
    run(corpus, out)
    put(corpus, "b.png", image(3, (40, 20)), changed=OLD + 60)
    put(corpus, "c.png", image(4))
    put(corpus, "same as c.png", image(4))
    (corpus / "a.png").unlink()
    run(corpus, out)
    export_run(str(out), "png", str(tmp_path / "export"), images=False)
    rows = {row["source"]: row for row in csv.DictReader((tmp_path / "export/index.csv").open(encoding="utf-8"))}
    assert {Path(source).name for source in rows} == {"b.png", "c.png", "same as c.png"}
    expected = {Path(source).name: mask_of(out, row) for source, row in latest(out)[1].items()}
    for source, row in rows.items():
        with Image.open(tmp_path / f"export/masks/{row['name']}.png") as mask:
            assert np.array_equal(np.array(mask), expected[Path(source).name])


def test_patterns_and_file_servers_folders_are_no_part_of_a_corpus(corpus):
    folder, out = corpus
    put(folder, "a.png", image(0))
    assert run(folder, out)["labelled"] == 1
    for name in ("@eaDir/x.png", "thumbs/y.png", "z.gif"):
        put(folder, name, image(77))
    found = run(folder, out, "--exclude", "thumbs", "--exclude", "*.gif")
    assert (found["images"], found["pictures"]) == (0, 1)
    assert found["left_out"] == [
        "1 folders that file servers make passed over (@eaDir x1)",
        "2 files and folders left out by --exclude",
    ]
