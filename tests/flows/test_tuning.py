"""`tune` as a user runs it: offline on the scenes, on real datasets, on pictures without masks; killed and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from pnp_core.config import EvalConfig, LabelConfig
from pnp_core.inputs.scenes.drawing import make_scene, render
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import read_shard
from pnp_core.tuning.config import TuneConfig
from pnp_core.tuning.objective import Objective
from pnp_core.tuning.plan import plan_tune, shard_tuning
from pnp_core.tuning.result import discard_other_results

runner = CliRunner()


def tune(*arguments: str, code: int = 0) -> dict:
    result = runner.invoke(app, ["tune", *arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


def refused(*arguments: str) -> str:
    result = runner.invoke(app, ["tune", *arguments])
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def trials(out: Path) -> bytes:
    (file,) = out.glob("tuning/*/*/trials.parquet")
    return file.read_bytes()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> tuple[Path, dict]:
    """A finished run over a small grid, compared with masks."""
    out = tmp_path_factory.mktemp("tuned")
    settings = out / "space.yaml"
    space = {"thresholds": [0.05, 0.2], "blurs": [0.0, 0.05]}
    settings.write_text(yaml.safe_dump({"space": space, "compare": {"images": 6}}))
    found = tune(
        "scenes", "--images", "12", "--optimizer", "grid", "--config", str(settings), "--out", str(out / "run")
    )
    return out / "run", found


def test_tuning_tries_the_space_and_writes_the_best_setting(tuned):
    out, found = tuned
    assert (found["trials"], found["settings"], found["images"], found["quarantined"]) == (8, 8, 12, 0)
    rows = pq.read_table(next(out.glob("tuning/*/*/trials.parquet"))).to_pylist()
    assert {(r["head"], r["threshold"], r["blur"]) for r in rows} == {
        (h, t, b) for h in (0, 1) for t in (0.05, 0.2) for b in (0.0, 0.05)
    }
    best = max(rows, key=lambda row: row["reward"])
    assert found["best"] == {name: best[name] for name in found["best"]}
    written = yaml.safe_load((out / "best.yaml").read_text())
    assert (written["method"]["layer"], written["method"]["head"]) == (best["layer"], best["head"])
    assert written["masks"] == {"threshold": best["threshold"], "blur": best["blur"]}


def test_best_yaml_is_a_configuration_of_every_flow(tuned, tmp_path):
    out, found = tuned
    settings = str(out / "best.yaml")
    shared = {"settings": settings, "out": str(tmp_path)}
    configs = [EvalConfig(**shared), LabelConfig(source=".", classes=("cat",), **shared), TuneConfig(**shared)]
    for config in configs:
        assert config.masks.threshold == found["best"]["threshold"]
        assert config.method.head == found["best"]["head"]
        assert config.method.dropout.iterations == 4, "the method's own iterations stay"
    assert EvalConfig(masks={"threshold": 0.9}, **shared).masks.threshold == 0.9, "what is given wins"
    result = runner.invoke(
        app, ["eval", "scenes", "--limit", "4", "--config", settings, "--out", str(tmp_path), "--json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run.json").read_text())["config"]["masks"]["blur"] == found["best"]["blur"]


def test_comparison_with_masks_scores_every_setting_and_says_it_was_not_used(tuned):
    out, found = tuned
    comparison = found["comparison"]
    assert (comparison["what"], comparison["images"], comparison["settings"]) == ("full", 6, 8)
    assert comparison["miou_best"] >= comparison["miou_chosen"] > 0.3
    image = Image.open(out / "tuning.png")
    assert image.width > 1000


def test_the_same_command_again_computes_nothing_and_says_the_same(tuned):
    out, found = tuned
    before = {f: f.stat().st_mtime_ns for f in out.rglob("*.safetensors")}
    again = tune(
        "scenes", "--images", "12", "--optimizer", "grid", "--config", str(out.parent / "space.yaml"), "--out", str(out)
    )
    assert again["regions"] == 0, "CLIP looked at nothing"
    assert again["stages"]["maps"]["shards_resumed"] == 1
    assert {name: again[name] for name in ("best", "comparison")} == {n: found[n] for n in ("best", "comparison")}
    assert {f: f.stat().st_mtime_ns for f in out.rglob("*.safetensors")} == before


def test_shards_of_a_tuning_run_hold_no_mask(tuned):
    out, _ = tuned
    run = RunFolder(str(out))
    config = TuneConfig(out=str(out), images=12)
    samples = [sample for shard in shard_tuning(config) for sample in read_shard(run, shard)]
    assert len(samples) == 12
    assert all(sample.label_map is None and sample.classes for sample in samples)


def voc_copy(shared_data: Path, folder: Path, masks: bool) -> Path:
    shutil.copytree(shared_data / "VOCdevkit/VOC2012", folder / "VOC2012")
    # The pictures of the sample that come with their annotation.
    (folder / "VOC2012/ImageSets/Segmentation/train.txt").write_text("2007_000063\n2011_003353\n")
    if not masks:
        shutil.rmtree(folder / "VOC2012/SegmentationClass")
    return folder


def test_reward_is_the_same_when_the_masks_are_deleted(shared_data, tmp_path):
    space = {"space": {"thresholds": [0.1, 0.3], "blurs": [0.02], "heads": [1]}}
    settings = tmp_path / "space.yaml"
    settings.write_text(yaml.safe_dump(space))
    found = {}
    for masks in (True, False):
        data, out = voc_copy(shared_data, tmp_path / f"data-{masks}", masks), tmp_path / f"out-{masks}"
        given = ["--data", str(data), "--config", str(settings), "--optimizer", "grid", "--preset", "tiny"]
        found[masks] = tune("voc21", *given, "--out", str(out))
    assert trials(tmp_path / "out-True") == trials(tmp_path / "out-False")
    assert found[True]["best"] == found[False]["best"]
    assert found[True]["comparison"]["images"] == 1, "of one the sample has no mask"
    assert found[False]["comparison"] is None


def test_pictures_of_ones_own_need_neither_labels_nor_masks(tmp_path):
    for index in range(6):
        image, _ = render(make_scene("test", index))
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"photos/{index}.png")
    (tmp_path / "photos/torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    given = ["--data", str(tmp_path / "photos"), "--classes", "star,car,heart,key", "--trials", "4", "--preset", "tiny"]
    found = tune("folder", *given, "--out", str(tmp_path / "out"))
    assert (found["images"], found["quarantined"], found["trials"]) == (7, 1, 4)
    assert found["comparison"] is None
    assert list(found["reasons"])


def test_pictures_that_all_fail_end_in_one_line_with_the_reason(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    given = [
        "tune",
        "folder",
        "--data",
        str(tmp_path / "photos"),
        "--classes",
        "star,car",
        "--out",
        str(tmp_path / "out"),
        "--preset",
        "tiny",
    ]
    result = runner.invoke(app, given)
    assert result.exit_code == 1
    assert "nothing to tune on: none of 1 pictures has a class (1 x" in result.stderr.splitlines()[-1]


def test_more_drop_iterations_come_from_the_salience_stage_and_stay_cached(tmp_path):
    settings = tmp_path / "space.yaml"
    space = {"thresholds": [0.1], "blurs": [0.02], "heads": [1], "iterations": [1, 3]}
    settings.write_text(yaml.safe_dump({"space": space, "compare": {"masks": "off"}}))
    given = ["--images", "4", "--optimizer", "grid", "--config", str(settings), "--out", str(tmp_path / "out")]
    found = tune("scenes", *given)
    rows = pq.read_table(next((tmp_path / "out").glob("tuning/*/*/trials.parquet"))).to_pylist()
    assert {row["iterations"]: row["reward"] for row in rows}.keys() == {1, 3}
    assert len({row["reward"] for row in rows}) == 2
    assert len(list((tmp_path / "out/salience").glob("*/*.done.json"))) == 1, "for the one (layer, head) alone"
    best = yaml.safe_load((tmp_path / "out/best.yaml").read_text())
    assert best["method"]["dropout"]["iterations"] == found["best"]["iterations"]


def test_best_yaml_carries_all_that_the_choice_depends_on(tmp_path):
    settings = tmp_path / "attention.yaml"
    space = {"layers": [1], "thresholds": [0.1], "blurs": [0.0], "iterations": [2]}
    salience = {"kind": "attention", "caption": {"mode": "joint"}, "dropout": {"strategy": "fraction", "amount": 0.3}}
    settings.write_text(yaml.safe_dump({"space": space, "salience": salience, "compare": {"masks": "off"}}))
    given = ["--images", "3", "--optimizer", "grid", "--config", str(settings)]
    tune("scenes", *given, "--out", str(tmp_path / "tune"))
    best = EvalConfig(config_file=str(tmp_path / "tune/best.yaml"), out=str(tmp_path))
    assert best.method.kind == "attention"
    assert best.method.caption.mode == "joint"
    assert best.method.dropout.model_dump() == {"iterations": 2, "strategy": "fraction", "amount": 0.3}
    config = ["--limit", "2", "--config", str(tmp_path / "tune/best.yaml"), "--out", str(tmp_path / "eval")]
    assert runner.invoke(app, ["eval", "scenes", *config]).exit_code == 0
    refused_line = runner.invoke(app, ["eval", "scenes", *config, "--checkpoint", "owner/name"])
    assert refused_line.exit_code == 2
    assert "was made for checkpoint tiny; leave out --checkpoint owner/name" in refused_line.stderr


def test_a_class_subset_still_gets_its_number_of_pictures(tmp_path):
    given = ["--images", "6", "--only-classes", "star", "--trials", "2", "--compare", "plain"]
    found = tune("scenes", *given, "--out", str(tmp_path))
    assert (found["images"], found["pairs"], found["quarantined"]) == (6, 6, 0)
    assert found["comparison"]["images"] == 6


def test_pictures_without_a_class_are_counted(tmp_path):
    settings = tmp_path / "none.yaml"
    candidates = {"source": "itm", "min_score": 0.97, "fallback": "background"}
    settings.write_text(yaml.safe_dump({"salience": {"candidates": candidates}, "compare": {"masks": "off"}}))
    given = ["--images", "12", "--trials", "1", "--config", str(settings), "--out", str(tmp_path / "out")]
    found = tune("scenes", *given)
    assert found["without_classes"] > 0
    assert found["stages"]["pictures"]["images"] + found["quarantined"] + found["without_classes"] == 12


@pytest.mark.slow
def test_groups_side_by_side_give_what_they_give_one_after_the_other(tmp_path, random_blip):
    found = {}
    for parallel in (1, 2):
        settings = tmp_path / f"{parallel}.yaml"
        backbone = {"checkpoint": str(random_blip), "image_size": 48, "heads": 2}
        values = {"salience": {"backbone": backbone}, "search": {"parallel": parallel}, "compare": {"masks": "off"}}
        settings.write_text(yaml.safe_dump({**values, "images_per_shard": 2}))
        given = ["--images", "4", "--trials", "7", "--config", str(settings), "--out", str(tmp_path / str(parallel))]
        found[parallel] = tune("scenes", *given)
    assert found[1]["best"] == found[2]["best"]
    assert trials(tmp_path / "1") == trials(tmp_path / "2")
    rows = pq.read_table(next((tmp_path / "1").glob("tuning/*/*/trials.parquet"))).to_pylist()
    assert [sorted({r["layer"] for r in rows if r["group"] == g}) for g in (0, 1)] == [[0], [1]]


def test_what_another_search_chose_does_not_stay_behind(tuned, tmp_path):
    out = shutil.copytree(tuned[0], tmp_path / "copy")
    config = TuneConfig(out=str(out), images=12, search={"seed": 0, "trials": 3})
    plan = plan_tune(config)
    discard_other_results(plan, shard_tuning(config))
    assert not any((out / name).exists() for name in ("best.yaml", "tune.json", "tuning.png"))


@pytest.mark.slow
def test_comparison_follows_the_masks_not_only_the_pictures(shared_data, tmp_path):
    data = voc_copy(shared_data, tmp_path / "data", masks=True)
    given = ["--data", str(data), "--trials", "2", "--out", str(tmp_path / "out")]
    before = tune("voc21", *given)
    mask = data / "VOC2012/SegmentationClass/2007_000063.png"
    with Image.open(mask) as opened:
        everywhere = np.full((opened.height, opened.width), 12, np.uint8)
    Image.fromarray(everywhere).save(mask)
    after = tune("voc21", *given)
    assert after["best"] == before["best"]
    assert after["comparison"]["miou_best"] != before["comparison"]["miou_best"]


def test_objective_of_a_run_equals_its_log(tuned):
    out, _ = tuned
    record = json.loads((out / "tune.json").read_text())
    plan = plan_tune(TuneConfig.model_validate(record["config"]))
    objective = Objective.create(plan, shard_tuning(plan.config), plan.config.runtime)
    for row in pq.read_table(next(out.glob("tuning/*/*/trials.parquet"))).to_pylist()[:3]:
        setting = next(s for s in plan.groups[0].space.settings() if all(row[k] == v for k, v in vars(s).items()))
        assert objective(setting) == pytest.approx(row["reward"], abs=1e-6)


def logged(out: Path) -> int:
    files = list(out.glob("tuning/*/*/group-0.parquet"))
    return pq.read_metadata(files[0]).num_rows if files else 0


@pytest.mark.ops
def test_search_killed_at_a_random_trial_gives_the_same_best_and_the_same_log(tmp_path):
    arguments = ["scenes", "--images", "4", "--trials", "20", "--compare", "off", "--out"]
    undisturbed = tune(*arguments, str(tmp_path / "undisturbed"))
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "tune", *arguments, str(out)],
        env={**os.environ}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    stop = int(np.random.default_rng().integers(1, 12))
    while logged(out) < stop:
        assert process.poll() is None, "the search ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert stop <= logged(out) < 20
    final = tune(*arguments, str(out))
    assert final["best"] == undisturbed["best"]
    assert 0 < final["regions"] < undisturbed["regions"], "what was rewarded before the kill is not looked at again"
    assert trials(out) == trials(tmp_path / "undisturbed")
    assert (out / "best.yaml").read_bytes() == (tmp_path / "undisturbed/best.yaml").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scenes", "--optimizer", "bayes"], "unknown optimizer 'bayes'; did you mean 'bayesian'"),
        (["scenes", "--trials", "0"], "search.trials: Input should be greater than or equal to 1"),
        (["scenes", "--reward", "gold"], "unknown reward 'gold'"),
        (["scenes", "--clip", "local-dir:/nowhere"], "no CLIP model in '/nowhere'"),
        (["scenes", "--clip", "ViT-B-17"], "unknown CLIP model 'ViT-B-17'"),
        (["scenes", "--split", "dev"], "unknown split of dataset scenes 'dev'"),
        (["scenes", "--classes", "cat"], "classes are for pictures of your own"),
        (["folder", "--classes", "cat,dog"], "say where your pictures are with --data"),
        (["folder", "--data", ".", "--classes", "cat"], "tuning needs two class names or more"),
        (["voc21"], "dataset voc21 is read from disk; say where with --data"),
        (["folder", "--data", ".", "--classes", "star", "--candidates", "labels"], "have no image-level labels"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, tmp_path):
    assert message in refused(*arguments, "--out", str(tmp_path))


def test_layers_and_heads_that_are_not_there_end_in_one_line(tmp_path):
    for space, message in (
        ({"layers": [1]}, "layer 1 is the last one: its salience is zero"),
        ({"layers": [7]}, "layer 7 is out of range"),
        ({"heads": [2]}, "head 2 is out of range"),
        ({"thresholds": [1.5]}, "space.thresholds.0: Input should be less than 1"),
        ({"thresholds": []}, "space.thresholds: "),
    ):
        (tmp_path / "space.yaml").write_text(yaml.safe_dump({"space": space}))
        assert message in refused("scenes", "--config", str(tmp_path / "space.yaml"), "--out", str(tmp_path / "out"))
