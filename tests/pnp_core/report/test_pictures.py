"""Pictures beside the page: their own pixels, bounded, and ours."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_core.config import EvalConfig
from pnp_core.data import RunSummary
from pnp_core.errors import ForeignFilesError
from pnp_core.inputs.images import decode_label_map
from pnp_core.report import page as page_module
from pnp_core.report import pictures as pictures_module
from pnp_core.report.layers import label_sheet
from pnp_core.report.page import PAGE, report_page
from pnp_core.report.palette import display_palette
from pnp_core.report.pictures import FILE, Pictures
from pnp_core.report.rows import rows_of_shard
from pnp_core.runs.plan import Plan, plan_eval
from pnp_core.stages.masks import read_masks
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import read_refs


def plan_of(run: Path) -> Plan:
    return plan_eval(config_of(run))


def config_of(run: Path) -> EvalConfig:
    return EvalConfig.model_validate({**json.loads((run / "run.json").read_text())["config"], "out": str(run)})


def shown(page: bytes) -> list[dict]:
    found = re.search(r'id="data">(.*?)</script>', page.decode(), re.S)
    assert found
    return json.loads(found[1])["pictures"]


@pytest.fixture
def copied(evaluated, tmp_path) -> Path:
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


def remade(run: Path) -> list[dict]:
    summary = RunSummary(str(run), images=8, labelled=8)
    return shown(report_page(config_of(run), plan_of(run), read_refs(RunFolder(str(run))), summary, beside=True))


def written(run: Path) -> dict[Path, tuple[int, int]]:
    return {f: (f.stat().st_mtime_ns, f.stat().st_size) for f in (run / "report/pictures").rglob("*") if f.is_file()}


def test_run_leaves_every_picture_and_its_mask_with_their_own_pixels(evaluated):
    plan, palette = plan_of(evaluated), display_palette()
    shards = read_refs(RunFolder(str(evaluated)))
    masks = {key: png for shard in shards for key, png in read_masks(plan.masks.folder, shard.name).items()}
    for picture in shown((evaluated / PAGE).read_bytes()):
        files = picture["beside"]
        assert files["size"] == picture["size"] == [192, 192]
        assert re.fullmatch(FILE, files["photo"])
        assert re.fullmatch(FILE, files["layers"])
        assert Image.open(evaluated / "report" / files["photo"]).size == (192, 192)
        sheet = np.asarray(Image.open(evaluated / "report" / files["layers"]).convert("RGBA"))
        assert sheet.shape == (3 * 192, 192, 4), "prediction, ground truth and errors below each other"
        labels = decode_label_map(masks[picture["key"]])
        assert (sheet[:192, :, :3][labels > 0] == palette[labels[labels > 0]]).all()
        assert ((sheet[:192, :, 3] > 0) == (labels > 0)).all()
        assert picture["mask"] == f"masks/{plan.masks.fingerprint}/{picture['mask'][-14:]}"


def test_page_that_shows_the_same_writes_no_picture_anew(copied):
    first = remade(copied)
    before = written(copied)
    assert len(before) == 16
    assert remade(copied) == first
    assert written(copied) == before
    lost = next(iter(before))
    lost.unlink()
    remade(copied)
    after = written(copied)
    assert {file for file in after if after[file] != before[file]} <= {lost.with_suffix(s) for s in (".jpg", ".png")}
    assert after.keys() == before.keys()


def test_pictures_stay_within_their_bytes_and_lose_pixels_for_it(copied, monkeypatch):
    monkeypatch.setattr(pictures_module, "BESIDE_BYTES", 8 * 3_000)
    sides = [picture["beside"]["size"][0] for picture in remade(copied) if picture["beside"]]
    assert sides
    assert max(sides) < 192
    assert sum(size for _, size in written(copied).values()) <= 8 * 3_000


def test_pictures_that_the_page_shows_no_more_are_deleted_and_those_of_others_stay(copied, monkeypatch):
    folder = next(iter(written(copied))).parent
    (folder / "mine.txt").write_text("mine")
    monkeypatch.setattr(page_module, "IMAGES", 4)
    shown_now = remade(copied)
    files = {copied / "report" / p["beside"][name] for p in shown_now for name in ("photo", "layers")}
    assert len(files) == 8
    assert set(written(copied)) == files | {folder / "mine.txt"}


def test_what_another_wrote_there_stays(copied, tmp_path):
    plan, (shard, *_) = plan_of(copied), read_refs(RunFolder(str(copied)))
    other = RunFolder(str(tmp_path / "other"))
    folder = tmp_path / "other/report/pictures" / plan.masks.fingerprint
    folder.mkdir(parents=True)
    (folder / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(ForeignFilesError):
        Pictures(other, 8).begin(plan, shard, ["a"])
    assert (folder / "mine.jpg").read_bytes() == b"mine"


def test_sheet_of_more_labels_than_a_palette_holds_keeps_every_colour():
    labels = np.arange(255, dtype=np.uint8)[None]
    truth = np.roll(labels, 1)
    sheet = label_sheet(labels, truth, False)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    pixels = np.asarray(Image.open(buffer).convert("RGBA"))
    assert pixels.shape == (3, 255, 4)
    assert (pixels[0, 1:, :3] == display_palette()[1:255]).all()
    assert len(np.unique(pixels[2], axis=0)) == 3, "wrong class, missed, too much"


def test_confidence_of_pixels_is_read_where_the_run_keeps_it(evaluated):
    plan = plan_of(evaluated)
    (shard, *_) = read_refs(RunFolder(str(evaluated)))
    (row, *_) = rows_of_shard(plan, shard, {"test_00000"})
    assert row.confidence is not None
    assert row.confidence.shape == row.labels.shape
    assert row.confidence.mean() / 255 > 0.5
