"""Finished runs put together: scores added up from stored maps, without a model."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.pipelines import evaluation
from pnp_core.config import EvalConfig
from pnp_core.errors import DamagedError, UsageError
from pnp_core.methods import METHODS, method_of
from pnp_core.methods.base import Question
from pnp_core.methods.ensemble.config import EnsembleConfig
from pnp_core.methods.ensemble.members import StoredRun, read_member
from pnp_core.methods.ensemble.method import METHOD
from pnp_core.runs.plan import plan_eval
from pnp_core.storage.class_maps import read_class_maps
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import read_refs
from tests.artifacts import artifacts
from tests.flows.test_methods import ROOT, TOY

PHOTOGRAPHS = ROOT / "pnp_core" / "_photographs"
OFF = {"crf": {"name": "off"}}
SCENES = {"limit": 6, "shards": 2}
runner = CliRunner()


def evaluate(out: Path | str, **values: Any) -> dict[str, Any]:
    return evaluation.evaluate(EvalConfig.model_validate({"out": str(out), **SCENES, **values})).as_json()


def ensemble(*runs: Path | str, weights: tuple[float, ...] = (), **more: Any) -> dict[str, Any]:
    return {"method": {"name": "ensemble", "runs": list(map(str, runs)), "weights": weights}, **more}


def masks_of(out: Path) -> dict[str, tuple[bytes, bytes]]:
    """Mask and confidence by key, of the masks that a run folder stands for."""
    folder = out / "masks" / json.loads((out / "run.json").read_text())["fingerprints"]["masks"]
    rows = [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    return {row["key"]: (row["mask"]["bytes"], (row["confidence"] or {}).get("bytes")) for row in rows}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Iterator[Path]:
    """Runs of the same six scenes: PnP-OVSS with several passes (`deep`), with one on another grid (`small`), `toy`."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOY)
        METHODS.__dict__.pop("_places", None)
        evaluate(out / "deep", method={"dropout": {"iterations": 2}}, masks={"confidence": True})
        small = {"dropout": {"iterations": 1}, "backbone": {"image_size": 64}}
        evaluate(out / "small", method=small, masks={"threshold": 0.2, "blur": 0.05})
        evaluate(out / "toy", method={"name": "toy", "grid": 20}, masks={"threshold": 0.3, **OFF})
        evaluate(out / "naclip", method={"name": "naclip"}, masks={"confidence": True})
        yield out
    METHODS.__dict__.pop("_places", None)


@pytest.fixture(scope="module")
def both(made) -> Path:
    """`deep` and `small` together."""
    evaluate(made / "both", **ensemble(made / "deep", made / "small", weights=(3, 1)))
    return made / "both"


@pytest.fixture
def copies(made, tmp_path) -> tuple[Path, Path]:
    """Copies of `deep` and `toy` that may be changed."""
    for name in ("deep", "toy"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path / "deep", tmp_path / "toy"


def test_one_run_alone_has_the_same_masks_byte_for_byte(made, tmp_path):
    evaluate(tmp_path / "deep", **ensemble(made / "deep", masks={"confidence": True}))
    assert masks_of(tmp_path / "deep") == masks_of(made / "deep")
    evaluate(tmp_path / "toy", **ensemble(made / "toy", weights=(0.3,), masks=OFF), shards=3)
    assert [m for m, _ in masks_of(tmp_path / "toy").values()] == [m for m, _ in masks_of(made / "toy").values()]


@pytest.mark.slow
def test_a_run_of_weight_zero_plays_no_part(made, tmp_path):
    config = ensemble(made / "deep", made / "small", weights=(2, 0), masks={"confidence": True})
    evaluate(tmp_path / "x", **config)
    assert masks_of(tmp_path / "x") == masks_of(made / "deep")


def test_runs_on_other_grids_add_up_as_their_own_methods_decide(made, both):
    """The channels of an image are held against a sum by hand of what both runs decide."""
    plan = plan_eval(EvalConfig.model_validate({"out": str(both), **SCENES, **recorded(both)}))
    shard = read_refs(plan.salience.folder.run)[0].name
    key, maps = next(iter(read_class_maps(plan.salience.folder, shard).items()))
    assert [part.maps.shape[0] for part in maps.parts] == [2, 1]
    assert maps.parts[0].maps.shape[2:] != maps.parts[1].maps.shape[2:]
    by_hand = 0
    for name, share in (("deep", 0.75), ("small", 0.25)):
        own = plan_eval(EvalConfig.model_validate({"out": str(made / name), **SCENES, **recorded(made / name)}))
        stored = read_class_maps(own.salience.folder, shard)[key]
        raised = np.exp(own.masks.decide(stored, (40, 50)).channels)
        by_hand = by_hand + share * raised / raised.sum(axis=0)
    found = plan.masks.decide(maps, (40, 50))
    assert found.labels[1:] == maps.classes
    assert np.exp(found.channels) == pytest.approx(by_hand, abs=1e-6)
    config = plan.masks.method
    again = method_of(config).decide(config, plan.masks.config, maps, (40, 50))
    assert (again.channels == found.channels).all()


def test_a_run_with_several_maps_of_a_class_goes_with_others_and_alone(made, tmp_path):
    for place, runs in enumerate([("naclip", "deep"), ("deep", "naclip")]):
        out = tmp_path / f"{place}"
        assert evaluate(out, **ensemble(*(made / run for run in runs)))["labelled"] == 6
        assert (out / "report/index.html").exists()
    first, second = (masks_of(tmp_path / name) for name in "01")
    assert {key: mask for key, (mask, _) in first.items()} == {key: mask for key, (mask, _) in second.items()}
    alone = ensemble(made / "naclip", masks={"confidence": True, "crf": {"name": "pamr"}})
    evaluate(tmp_path / "alone", **alone)
    assert masks_of(tmp_path / "alone") == masks_of(made / "naclip")


def recorded(out: Path) -> dict[str, Any]:
    config = json.loads((out / "run.json").read_text())["config"]
    return {name: config[name] for name in ("method", "salience", "masks")}


def test_another_package_s_method_and_pnp_ovss_together_resumed_and_recorded(made, tmp_path):
    out, config = tmp_path / "x", ensemble(made / "deep", made / "toy")
    summary = evaluate(out, **config)
    assert summary["labelled"] == 6
    before = artifacts(out)
    assert evaluate(out, **config)["resumed"] == 6
    assert artifacts(out) == before
    record = json.loads((out / "run.json").read_text())
    assert [(run["run"], run["method"]) for run in record["runs"]] == [
        (str(made / "deep"), "pnp-ovss"),
        (str(made / "toy"), "toy"),
    ]
    assert "runs" not in json.loads((made / "deep/run.json").read_text())
    done = runner.invoke(app, ["tables", str(out), str(made / "deep"), "--out", str(tmp_path / "tables")])
    assert done.exit_code == 0, done.stderr
    assert "ensemble 0.5 deep + 0.5 toy, labels" in (tmp_path / "tables/main.csv").read_text()


KILLED_IN_THE_SECOND_SHARD = """
import os, signal
from flows.cli import app
from pnp_core.methods.ensemble.members import StoredRun
real, calls = StoredRun.maps, []
def maps(run, key, size):
    calls.append(key)
    if len(calls) > 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(run, key, size)
StoredRun.maps = maps
app()
"""


def test_a_killed_run_goes_on_to_the_same_bytes(made, both, tmp_path):
    command = ["eval", "scenes", "--limit", "6", "--shards", "2", "--out", str(tmp_path / "x"), "--weights", "3,1"]
    command += ["--run", str(made / "deep"), "--run", str(made / "small")]
    environment = {**os.environ}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_IN_THE_SECOND_SHARD, *command], env=environment, cwd=ROOT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert [file.name for file in (tmp_path / "x/salience").glob("*/*.done.json")] == ["000000.done.json"]
    done = runner.invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["stages"]["salience"]["shards_resumed"] == 1
    assert artifacts(tmp_path / "x") == artifacts(both)


@pytest.mark.slow
def test_a_lost_shard_is_made_again_to_the_same_bytes(made, both, tmp_path):
    config = ensemble(made / "deep", made / "small", weights=(3, 1))
    shutil.copytree(both, tmp_path / "x")
    evaluate(tmp_path / "x", **config)
    for stage in ("salience", "masks"):
        for file in (tmp_path / "x" / stage).glob("*/000001.*"):
            file.unlink()
    summary = evaluate(tmp_path / "x", **config)
    assert summary["stages"]["salience"]["shards_resumed"] == summary["stages"]["masks"]["shards_resumed"] == 1
    assert artifacts(tmp_path / "x") == artifacts(both)


@pytest.mark.slow
def test_other_weights_need_no_new_maps_and_the_same_proportions_no_new_masks(made, both, tmp_path):
    shutil.copytree(both, tmp_path / "x")
    summary = evaluate(tmp_path / "x", **ensemble(made / "deep", made / "small", weights=(6, 2)))
    assert summary["resumed"] == 6
    summary = evaluate(tmp_path / "x", **ensemble(made / "deep", made / "small", weights=(1, 2)))
    assert summary["resumed"] == 0
    assert summary["stages"]["salience"]["shards_resumed"] == 2


@pytest.mark.slow
def test_a_run_that_moved_is_the_same_and_one_that_changed_is_another(made, both, copies, tmp_path):
    moved, _ = copies
    shutil.copytree(both, tmp_path / "x")
    assert evaluate(tmp_path / "x", **ensemble(moved, made / "small", weights=(3, 1)))["resumed"] == 6
    evaluate(moved, method={"dropout": {"iterations": 2}}, masks={"threshold": 0.4})
    assert evaluate(tmp_path / "x", **ensemble(moved, made / "small", weights=(3, 1)))["resumed"] == 0


@pytest.mark.slow
def test_runs_may_lie_in_a_bucket(made, tmp_path):
    files = fsspec.filesystem("memory")
    files.put(str(made / "toy"), "/bucket/toy", recursive=True)
    evaluate(tmp_path / "x", **ensemble(made / "deep", "memory://bucket/toy"))
    evaluate(tmp_path / "y", **ensemble(made / "deep", made / "toy"))
    assert masks_of(tmp_path / "x") == masks_of(tmp_path / "y")


def test_pictures_that_a_run_lacks_are_quarantined_with_the_reason(made, tmp_path):
    evaluate(tmp_path / "few", method={"name": "toy"}, limit=4)
    summary = evaluate(tmp_path / "x", **ensemble(made / "deep", tmp_path / "few"))
    assert (summary["labelled"], summary["quarantined"]) == (4, 2)
    ((reason, number),) = summary["reasons"].items()
    assert number == 2
    assert reason == f"run '{tmp_path / 'few'}' of the ensemble does not know it"


@pytest.mark.slow
def test_pictures_of_another_size_are_others(made, tmp_path, monkeypatch):
    real = StoredRun.maps
    monkeypatch.setattr(StoredRun, "maps", lambda self, key, size: real(self, key, (size[0] + 1, size[1])))
    summary = evaluate(tmp_path / "x", **ensemble(made / "deep"))
    assert summary["quarantined"] == 6
    assert "has another picture of that key" in next(iter(summary["reasons"]))


def test_a_damaged_run_is_named_and_mended_it_goes_on(copies, tmp_path):
    deep, toy = copies
    (file,) = (deep / "salience").glob("*/000001.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DamagedError, match=r"000001.safetensors' is damaged"):
        evaluate(tmp_path / "x", **ensemble(deep, toy))
    file.write_bytes(whole)
    assert evaluate(tmp_path / "x", **ensemble(deep, toy))["labelled"] == 6
    (record,) = (deep / "salience").glob("*/000000.done.json")
    record.write_text(record.read_text().replace("outputs", "output"))
    with pytest.raises(DamagedError, match=r"000000.done.json' is damaged"):
        evaluate(tmp_path / "x", **ensemble(deep, toy))


def refused(message: str, config: dict[str, Any], out: Path) -> None:
    with pytest.raises((UsageError, ValueError), match=message):
        plan_eval(EvalConfig.model_validate({"out": str(out), **SCENES, **config}))


def test_runs_that_do_not_fit_are_refused_before_anything_is_started(made, both, copies, tmp_path):
    no = partial(refused, out=tmp_path / "x")
    no("does not exist", ensemble(tmp_path / "nothing"))
    no("is an ensemble itself: name its runs", ensemble(both))
    vocabulary = {"candidates": {"source": "vocabulary"}}
    no(
        "candidates with source labels, the ensemble would with vocabulary: give -p salience.candidates.source=labels",
        ensemble(made / "deep", salience=vocabulary),
    )
    no("classes of this run", ensemble(made / "deep", only_classes=["car"]))
    refused("is where the ensemble is to go", ensemble(made / "deep"), out=made / "deep")


def test_runs_of_other_classes_or_another_dataset_are_refused(made):
    method = EnsembleConfig(runs=(str(made / "deep"),))
    pinned = METHOD.pin(method)
    names = pinned.members[0].classes

    def question(names: tuple[str, ...], card: str = "scenes") -> Question:
        return Question(out="x", card=card, names=names, vocabulary=tuple(range(1, 30)), candidates={})

    METHOD.check_question(method, pinned, question(names))
    with pytest.raises(UsageError, match="has other classes: 20, not 1; give both the same classes"):
        METHOD.check_question(method, pinned, question(names[:1]))
    with pytest.raises(UsageError, match="has other classes: label 1 is 'heart', not 'hearth'"):
        METHOD.check_question(method, pinned, question(("hearth", *names[1:])))
    with pytest.raises(UsageError, match="is of scenes, not of voc21"):
        METHOD.check_question(method, pinned, question(names, "voc21"))


def test_a_run_without_all_its_maps_is_not_finished(copies, tmp_path):
    deep, _ = copies
    next((deep / "salience").glob("*/000001.done.json")).unlink()
    refused("is not finished: shard 000001 has no maps", ensemble(deep), tmp_path / "x")


@pytest.mark.slow
def test_candidates_by_match_score_are_those_of_the_runs_and_need_no_model(made, tmp_path):
    """`label` asks the model which classes are there; the ensemble has none."""
    own = ["label", str(PHOTOGRAPHS), "--classes", "heart,car", "--json"]
    done = runner.invoke(app, [*own, "--preset", "tiny", "--out", str(tmp_path / "one")])
    assert done.exit_code == 0, done.stderr
    crf = ["-p", "masks.crf.bilateral_srgb=20"]
    done = runner.invoke(app, [*own, *crf, "--run", str(tmp_path / "one"), "--out", str(tmp_path / "x")])
    assert done.exit_code == 0, done.stderr
    masks = masks_of(tmp_path / "x")
    assert len(masks) > 3
    assert masks == masks_of(tmp_path / "one")


def test_runs_that_are_older_than_the_view_of_clip_saw_the_centre(copies):
    toy = RunFolder(str(copies[1]))
    values = toy.read_json("run.json")
    assert values["config"]["salience"]["candidates"].pop("view") == "whole"
    toy.write_json("run.json", values)
    assert json.loads(read_member(toy.url).candidates)["view"] == "centre"


def test_other_candidates_in_some_picture_are_refused(made, copies, tmp_path):
    answers = {key: ["heart"] for key in masks_of(made / "deep")}
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    candidates = {"candidates": {"source": "file", "file": str(tmp_path / "answers.json")}}
    evaluate(tmp_path / "file", method="toy", salience=candidates)
    answers[min(answers)] = ["car"]
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    evaluate(tmp_path / "other", method="toy", salience=candidates)
    config = ensemble(tmp_path / "file", tmp_path / "other", salience=candidates)
    refused("asked about other classes in 1 of 6 pictures, such as heart but car", config, tmp_path / "x")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({}, "an ensemble needs finished runs: --run FOLDER"),
        ({"runs": ["a", "b"], "weights": [0, 0]}, "all weights are 0"),
        ({"runs": ["a", "b"], "weights": [1]}, "1 weights for 2 runs"),
        ({"runs": ["a", "b"], "weights": [1, -1]}, "greater than or equal to 0"),
        ({"runs": ["a", "b"], "weights": [1, float("nan")]}, "finite"),
        ({"runs": ["a", "a/"]}, "run 'a' is named twice"),
        ({"runs": [{"run": "a", "wieght": 1}]}, "expected a folder, or {run: FOLDER, weight: NUMBER}"),
        ({"runs": [{"run": "a"}, "b"], "weights": [1, 2]}, "leave one out"),
        ({"runs": ["a"], "layer": 3}, "ensemble has no setting 'layer'"),
    ],
)
def test_what_makes_no_ensemble_is_refused(method, message, tmp_path):
    refused(message, {"method": {"name": "ensemble", **method}}, tmp_path / "x")


def test_settings_of_the_runs_are_refused_as_the_ensemble_s(tmp_path):
    refused("an ensemble has no threshold of its own", ensemble("a", masks={"threshold": 0.3}), tmp_path / "x")
    refused("preset 'paper' is none of ensemble's", ensemble("a", preset="paper"), tmp_path / "x")


@pytest.mark.slow
def test_weights_may_stand_with_each_run():
    weighed = {"name": "ensemble", "runs": [{"run": "a", "weight": 0.6}, "b"]}
    method = EvalConfig.model_validate({"out": "x", "method": weighed}).method
    assert (method.runs, method.weights) == (("a", "b"), (0.6, 1.0))
    assert (
        EvalConfig.model_validate(EvalConfig.model_validate({"out": "x", "method": weighed}).model_dump()).method
        == method
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("tune", "an ensemble has no threshold or blur of its own: tune each of its runs, which have theirs"),
        ("ablate", "ablate varies parts that only pnp-ovss has, not ensemble"),
    ],
)
def test_flows_that_have_nothing_to_vary_of_it_refuse_it_in_one_line(command, message, tmp_path):
    done = runner.invoke(app, [command, "scenes", "--method", "ensemble", "--out", str(tmp_path / "x")])
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    assert message in line


def test_on_the_command_line_runs_are_named_one_by_one(made, tmp_path):
    runs = [part for name in ("deep", "toy") for part in ("--run", str(made / name))]
    command = ["eval", "scenes", "--limit", "6", *runs, "--weights", "0.6,0.4", "--out", str(tmp_path / "x"), "--json"]
    done = runner.invoke(app, command)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["labelled"] == 6
    assert json.loads((tmp_path / "x/run.json").read_text())["config"]["method"]["weights"] == [0.6, 0.4]
