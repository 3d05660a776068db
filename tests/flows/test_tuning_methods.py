"""`tune` of other methods than PnP-OVSS: what they declare is searched, on maps made once, by the same reward."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from pnp_core.config import EvalConfig
from pnp_core.inputs.scenes.drawing import make_scene, render
from pnp_core.methods import METHODS
from pnp_core.tuning.config import TuneConfig
from pnp_core.tuning.objective import Objective
from pnp_core.tuning.plan import plan_tune, shard_tuning
from pnp_core.tuning.space import PathSetting

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "toy_method"
SPACE = {"thresholds": [0.0, 0.4], "blurs": [0.0, 0.05]}
runner = CliRunner()


def call(*arguments: object, code: int = 0) -> dict:
    done = runner.invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout.strip().splitlines()[-1])


def rows_of(out: Path) -> list[dict]:
    (file,) = out.glob("tuning/*/*/trials.parquet")
    return pq.read_table(file).to_pylist()


@pytest.fixture
def toy() -> Iterator[None]:
    """Its package is installed: in a folder that packages are looked for in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOY)
        METHODS.__dict__.pop("_places", None)
        yield
    METHODS.__dict__.pop("_places", None)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> tuple[Path, tuple[object, ...], dict]:
    """NACLIP over a small grid of eight scenes in two shards, compared with masks."""
    folder = tmp_path_factory.mktemp("naclip")
    settings = folder / "space.yaml"
    values = {"space": SPACE, "method": {"name": "naclip", "sigma": 3}, "images_per_shard": 4}
    settings.write_text(yaml.safe_dump({**values, "compare": {"images": 5, "masks": "plain"}}))
    command = ("tune", "scenes", "--images", 8, "--optimizer", "grid", "--config", settings, "--out", folder / "run")
    return folder / "run", command, call(*command)


def test_its_threshold_and_blur_are_searched_and_the_best_is_a_configuration_with_the_method(tuned):
    out, _, found = tuned
    rows = rows_of(out)
    assert {(row["masks.threshold"], row["masks.blur"]) for row in rows} == {
        (t, b) for t in (0, 0.4) for b in (0, 0.05)
    }
    assert (found["trials"], found["settings"], found["images"]) == (4, 4, 8)
    best = max(rows, key=lambda row: row["reward"])
    assert found["best"] == {name: best[name] for name in ("masks.threshold", "masks.blur", "reward")}
    config = EvalConfig(config_file=str(out / "best.yaml"), out="x")
    assert (config.method.name, config.method.sigma, config.method.clip.model) == ("naclip", 3, "tiny-vit")
    assert (config.masks.threshold, config.masks.blur) == (best["masks.threshold"], best["masks.blur"])
    assert config.masks.crf.name == "pamr", "what the method begins with stays where the choice does not depend on it"


def test_the_best_setting_is_used_by_eval(tuned, tmp_path):
    done = call("eval", "scenes", "--limit", 4, "--config", tuned[0] / "best.yaml", "--out", tmp_path)
    assert done["labelled"] == 4
    record = json.loads((tmp_path / "run.json").read_text())["config"]
    assert (record["method"]["sigma"], record["masks"]["blur"]) == (3, tuned[2]["best"]["masks.blur"])


@pytest.mark.slow
def test_maps_are_made_once_by_the_ordinary_stage_and_nothing_twice(tuned):
    out, command, found = tuned
    assert len(list((out / "salience").glob("*/*.done.json"))) == 2, "of two shards, whatever was tried"
    assert not (out / "tuning-maps").exists()
    again = call(*command)
    assert (again["regions"], again["stages"]["maps"]["shards_resumed"]) == (0, 2)
    assert {name: again[name] for name in ("best", "comparison")} == {n: found[n] for n in ("best", "comparison")}


@pytest.mark.slow
def test_every_setting_is_compared_with_masks_and_drawn(tuned):
    out, _, found = tuned
    assert (found["comparison"]["images"], found["comparison"]["settings"]) == (5, 4)
    assert found["comparison"]["miou_best"] >= found["comparison"]["miou_chosen"] > 0.3
    with Image.open(out / "tuning.png") as image:
        assert image.width > 1000


def test_the_reward_of_a_run_is_the_objective_s(tuned):
    out, _, _ = tuned
    plan = plan_tune(TuneConfig.model_validate(json.loads((out / "tune.json").read_text())["config"]))
    objective = Objective.create(plan, shard_tuning(plan.config), plan.config.runtime)
    row = rows_of(out)[0]
    setting = PathSetting(tuple((name, row[name]) for name in ("masks.threshold", "masks.blur")))
    assert setting in set(plan.groups[0].space.settings())
    assert objective(setting) == pytest.approx(row["reward"], abs=1e-6)


def test_a_method_of_another_package_is_tuned_by_what_it_declares_on_pictures_of_one_s_own(toy, tmp_path):
    (tmp_path / "photos").mkdir()
    for index in range(6):
        Image.fromarray(render(make_scene("test", index))[0]).save(tmp_path / f"photos/{index}.png")
    given = ("--classes", "star,car,heart,key", "--method", "toy", "--clip", "tiny", "--optimizer", "grid")
    found = call("tune", "folder", "--data", tmp_path / "photos", *given, "--out", tmp_path / "out")
    assert (found["trials"], found["comparison"]) == (3, None)
    assert {row["masks.threshold"] for row in rows_of(tmp_path / "out")} == {0.1, 0.3, 0.5}
    assert "masks.blur" not in found["best"]
    best = yaml.safe_load((tmp_path / "out/best.yaml").read_text())
    assert best["method"] == {"name": "toy", "grid": 24}
    assert best["masks"]["threshold"] == found["best"]["masks.threshold"]


def logged(out: Path) -> int:
    files = list(out.glob("tuning/*/*/group-0.parquet"))
    return pq.read_metadata(files[0]).num_rows if files else 0


@pytest.mark.ops
def test_a_killed_search_goes_on_to_the_same_log_and_choice(tmp_path):
    arguments = ("tune", "scenes", "--method", "naclip", "--images", 6, "--trials", 12, "--compare", "off", "--out")
    undisturbed = call(*arguments, tmp_path / "undisturbed")
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *map(str, arguments), str(out)],
        env={**os.environ}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while logged(out) < 3:
        assert process.poll() is None, "the search ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= logged(out) < 12
    final = call(*arguments, out)
    assert final["best"] == undisturbed["best"]
    assert final["regions"] < undisturbed["regions"], "what was rewarded before the kill is not looked at again"
    for name in ("tuning/*/*/trials.parquet", "tuning/*/*/group-0.parquet", "best.yaml"):
        ((one,), (other,)) = (list(place.glob(name)) for place in (out, tmp_path / "undisturbed"))
        assert one.read_bytes() == other.read_bytes(), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "space.heads=[1]"], "naclip has no heads to choose from: leave out space.heads"),
        (["-p", "space.iterations=[2]"], "naclip has no iterations to choose from: leave out space.iterations"),
        (["-p", "space.thresholds=[1.5]"], "space.thresholds.0: Input should be less than 1"),
        (["--judge", "match"], "naclip has no match score to judge by: leave out --judge match"),
        (["--candidates", "itm"], "naclip has no match score; use --candidates labels"),
        (["--layer", "1"], "naclip has no setting 'layer', which is one of pnp-ovss"),
    ],
)
def test_what_does_not_fit_ends_in_one_line(arguments, message, tmp_path):
    done = runner.invoke(app, ["tune", "scenes", "--method", "naclip", *arguments, "--out", str(tmp_path)])
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.strip().splitlines()
    assert message in line
