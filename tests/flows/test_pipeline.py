"""The pipelines on real shards."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from flows.pipelines.evaluation import evaluate
from flows.pipelines.labelling import label
from pnp_core.config import EvalConfig, LabelConfig
from pnp_core.data import RunSummary
from pnp_core.inputs.images import decode_label_map
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import INDEX
from tests.artifacts import artifacts


def eval_config(out, **changes) -> EvalConfig:
    return EvalConfig.model_validate({"out": str(out), "limit": 9, "shards": 3, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, RunSummary]:
    out = tmp_path_factory.mktemp("finished") / "run"
    return out, evaluate(eval_config(out))


def masks_of(out: Path) -> list[dict]:
    return [row for f in sorted((out / "masks").rglob("*.parquet")) for row in pq.read_table(f).to_pylist()]


def test_every_picture_gets_one_mask_of_its_size(finished):
    out, summary = finished
    rows = masks_of(out)
    assert (summary.images, summary.labelled, summary.quarantined, summary.resumed) == (9, 9, 0, 0)
    assert [row["key"] for row in rows] == [f"test_{i:05d}" for i in range(9)]
    for row in rows:
        labels = decode_label_map(row["mask"]["bytes"])
        assert labels.shape == (row["height"], row["width"]) == (192, 192)
        counted = {c["id"]: c["pixels"] for c in row["classes"]}
        assert counted == {c["id"]: int((labels == c["id"]).sum()) for c in row["classes"]}
        assert set(np.unique(labels)) <= {0, *counted}
        assert all(0 <= c["itm"] <= 1 and c["salience"] >= 0 for c in row["classes"])


def test_scores_are_those_of_all_pixels_together(finished):
    out, summary = finished
    truth, prediction = [], []
    from pnp_core.inputs.scenes.drawing import make_scene, render

    for i, row in enumerate(masks_of(out)):
        truth.append(render(make_scene("test", i))[1].ravel())
        prediction.append(decode_label_map(row["mask"]["bytes"]).ravel())
    truth, prediction = np.concatenate(truth), np.concatenate(prediction)
    ious = [
        ((truth == c) & (prediction == c)).sum() / ((truth == c) | (prediction == c)).sum() for c in np.unique(truth)
    ]
    assert summary.scores["miou"] == pytest.approx(np.mean(ious))
    assert summary.scores["pixel_accuracy"] == pytest.approx((truth == prediction).mean())


def test_same_run_again_computes_nothing_and_says_the_same(finished):
    out, first = finished
    before = {f: f.stat().st_mtime_ns for f in out.rglob("*.done.json")}
    again = evaluate(eval_config(out))
    assert {f: f.stat().st_mtime_ns for f in out.rglob("*.done.json")} == before
    assert again.scores == first.scores
    assert again.resumed == 9
    assert [again.stages[s].shards_resumed for s in ("salience", "masks", "scores")] == [3, 3, 3]


def test_two_runs_are_equal_byte_for_byte(finished, tmp_path):
    evaluate(eval_config(tmp_path / "other"))
    assert artifacts(tmp_path / "other") == artifacts(finished[0])


def test_batch_size_changes_rounding_at_most_and_no_fingerprint(finished, tmp_path):
    other = evaluate(eval_config(tmp_path / "other", runtime={"batch_size": 2}))
    assert Path(other.masks).name == Path(finished[1].masks).name
    for mine, theirs in zip(masks_of(tmp_path / "other"), masks_of(finished[0]), strict=True):
        labels = decode_label_map(mine["mask"]["bytes"]), decode_label_map(theirs["mask"]["bytes"])
        assert (labels[0] == labels[1]).mean() > 0.999


def test_masks_are_read_where_the_summary_says(finished):
    out, summary = finished
    assert Path(summary.masks).parent == out / "masks"
    assert pq.read_table(sorted(Path(summary.masks).glob("*.parquet"))).num_rows == 9


def test_changed_crf_reuses_the_salience(finished, tmp_path):
    out = Path(shutil.copytree(finished[0], tmp_path / "copy"))
    changed = evaluate(eval_config(out, masks={"crf": {"name": "off"}}))
    assert changed.stages["salience"].shards_resumed == 3
    assert changed.stages["masks"].shards_resumed == 0
    assert changed.scores != finished[1].scores
    back = evaluate(eval_config(out))
    assert back.stages["masks"].shards_resumed == 3


def test_png_files_carry_the_masks_and_the_voc_colours(finished, tmp_path):
    out = Path(shutil.copytree(finished[0], tmp_path / "copy"))
    summary = evaluate(eval_config(out, png=True))
    assert summary.stages["masks"].shards_resumed == 3
    files = sorted((out / "png").rglob("*.png"))
    assert [f.stem for f in files] == [row["key"] for row in masks_of(out)]
    assert [f.read_bytes() for f in files] == [row["mask"]["bytes"] for row in masks_of(out)]


def test_contact_sheet_shows_the_pictures(finished):
    with Image.open(finished[0] / "contact_sheet.png") as sheet:
        # 7 columns: picture, ground truth, prediction and four passes.
        assert sheet.width == 6 + 7 * 158
        # The first tile is the first scene, not blank paper.
        assert np.array(sheet.crop((6, 28, 158, 180)).convert("RGB")).std() > 10


def test_first_passes_of_stored_salience_give_the_masks_of_a_run_with_so_many(finished, tmp_path):
    out, _ = finished
    shutil.copytree(out, tmp_path / "run")
    fewer = evaluate(eval_config(tmp_path / "run", masks={"passes": 2}))
    assert fewer.stages["salience"].shards_resumed == 3
    alone = evaluate(eval_config(tmp_path / "alone", salience={"dropout": {"iterations": 2}}))
    assert fewer.scores == alone.scores
    masks = [
        [
            row["mask"]["bytes"]
            for file in sorted(Path(run.masks).glob("*.parquet"))
            for row in pq.read_table(file).to_pylist()
        ]
        for run in (fewer, alone)
    ]
    assert masks[0] == masks[1]
    with pytest.raises(ValidationError, match="passes 5 is more than the 4 drop iterations"):
        evaluate(eval_config(tmp_path / "run", masks={"passes": 5}))


def test_confidence_is_stored_when_asked(tmp_path):
    evaluate(eval_config(tmp_path / "run", limit=2, shards=1, masks={"confidence": True}))
    (row, _) = masks_of(tmp_path / "run")
    with Image.open(io.BytesIO(row["confidence"]["bytes"])) as confidence:
        assert confidence.size == (192, 192)
        assert np.array(confidence).max() > 128


def test_masks_load_with_hugging_face_datasets_as_pictures(finished):
    datasets = pytest.importorskip("datasets")
    files = [str(f) for f in sorted((finished[0] / "masks").rglob("*.parquet"))]
    loaded = datasets.load_dataset("parquet", data_files=files, split="train")
    assert len(loaded) == 9
    assert isinstance(loaded[0]["mask"], Image.Image)
    assert np.array_equal(np.array(loaded[0]["mask"]), decode_label_map(masks_of(finished[0])[0]["mask"]["bytes"]))
    assert loaded[0]["classes"][0]["name"]


def test_run_record_names_configuration_versions_and_weights(finished):
    record = RunFolder(str(finished[0])).read_json("run.json")
    assert record["config"]["limit"] == 9
    assert record["versions"]["torch"]
    assert record["weights_revision"]
    assert (record["card"]["name"], record["card"]["version"], record["card"]["images"]) == ("scenes", 2, 200)
    assert record["palette"][:2] == ["#000000", "#800000"]
    assert record["summary"]["seconds"]["salience"] > 0


def label_config(source, out, **changes) -> LabelConfig:
    own = {"source": str(source), "out": str(out), "classes": ["car", "hot-air balloon"], "images_per_shard": 4}
    return LabelConfig.model_validate({"preset": "tiny", **own, **changes})


def save_image(path: Path, size=(50, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)


def test_unreadable_pictures_are_quarantined_and_the_run_goes_on(tmp_path):
    save_image(tmp_path / "in/good.png")
    (tmp_path / "in/empty.jpg").write_bytes(b"")
    (tmp_path / "in/text.jpg").write_text("no picture")
    (tmp_path / os.fsdecode(b"in/caf\xe9.jpg")).write_bytes(b"")
    (tmp_path / "in/link.jpg").symlink_to("gone.jpg")
    summary = label(label_config(tmp_path / "in", tmp_path / "out"))
    assert (summary.images, summary.labelled, summary.quarantined) == (5, 1, 4)
    tables = (tmp_path / "out/quarantine").rglob("*.parquet")
    rows = [row for table in tables for row in pq.read_table(table).to_pylist()]
    reasons = {row["key"]: (row["stage"], row["reason"]) for row in rows}
    assert len(rows) == 4
    assert reasons["empty"] == ("salience", "empty file (0 bytes)")
    assert "not a picture" in reasons["text"][1]
    assert reasons["link"] == ("shard", "cannot be read: No such file or directory")


def test_changed_folder_leaves_no_stale_masks_and_keeps_unchanged_shards(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for i in range(10):
        save_image(source / f"{i}.png")
    first = label(label_config(source, out, png=True))
    assert first.labelled == 10
    for i in (5, 6, 7, 8, 9):
        (source / f"{i}.png").unlink()
    second = label(label_config(source, out, png=True))
    assert (second.labelled, second.resumed) == (5, 4)
    assert [row["key"] for row in masks_of(out)] == ["0", "1", "2", "3", "4"]
    assert [f.stem for f in sorted((out / "png").rglob("*.png"))] == ["0", "1", "2", "3", "4"]


def test_run_folder_may_be_any_fsspec_url():
    out = "memory://pnp-run"
    summary = evaluate(eval_config(out, limit=2, shards=2))
    assert summary.labelled == 2
    assert RunFolder(out).exists(INDEX)
    assert RunFolder(out).exists("contact_sheet.png")


def test_real_photographs_get_one_mask_each_at_their_own_size(shared_data, tmp_path):
    (tmp_path / "in").mkdir()
    photos = [f for f in sorted((shared_data / "demo").iterdir()) if f.suffix in (".png", ".jpg")]
    photos += sorted((shared_data / "VOCdevkit/VOC2012/JPEGImages").glob("*.jpg"))[:4]
    for photo in photos:
        shutil.copy(photo, tmp_path / "in")
    # Without the CRF, which takes most of the time and has photographs in other tests.
    summary = label(label_config(tmp_path / "in", tmp_path / "out", masks={"crf": {"name": "off"}}))
    rows = {row["source"]: row for row in masks_of(tmp_path / "out")}
    assert summary.labelled == len(photos) == len(rows)
    for photo in photos:
        with Image.open(photo) as image:
            assert decode_label_map(rows[photo.name]["mask"]["bytes"]).shape == (image.height, image.width)
