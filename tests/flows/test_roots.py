"""Data roots and default run folders, as a user types them; and as a flow on a worker finds them."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from flows.cli.options import Given
from flows.evaluation import evaluate_dataset
from flows.server.deployment_runs import _told_data, usual_out
from flows.server.stack import prefect_file
from pnp_core.config import AblateConfig, EvalConfig
from pnp_core.inputs.roots import set_root
from pnp_core.runs.plan import plan_eval
from pnp_core.tuning.config import TuneConfig
from tests.flows.commands import call, summary_of


@pytest.fixture
def voc(shared_data: Path) -> str:
    """VOC as distributed."""
    return str(shared_data / "VOCdevkit")


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def test_config_sets_gets_lists_and_unsets(user_config, tmp_path, monkeypatch):
    (tmp_path / "VOC").mkdir()
    monkeypatch.chdir(tmp_path)
    done = call("config", "set", "data.voc21", "VOC")
    assert (done.exit_code, done.stdout) == (0, f"data.voc21  {tmp_path}/VOC  in {user_config}\n")
    assert call("config", "get", "data.voc20").stdout == f"{tmp_path}/VOC\n"
    monkeypatch.setenv("PNP_OVSS_DATA", f"ade20k={tmp_path}")
    assert lines(call("config", "list").stdout) == [
        f"data.ade20k  {tmp_path}  (the variable PNP_OVSS_DATA)",
        f"data.voc21  {tmp_path}/VOC  (the configuration file '{user_config}')",
    ]
    listed = json.loads(call("config", "list", "--json").stdout)
    assert (listed["file"], listed["data"]["voc21"]["path"]) == (str(user_config), f"{tmp_path}/VOC")
    assert call("config", "unset", "data.voc21").exit_code == 0
    assert call("config", "get", "data.voc21").exit_code == 2
    monkeypatch.setenv("PNP_OVSS_DATA", f"voc21={tmp_path}")
    assert "counts more, which says" in call("config", "set", "data.voc21", "VOC").stderr
    monkeypatch.delenv("PNP_OVSS_DATA")
    call("config", "unset", "data.voc21")
    assert call("config", "list").stdout == f"nothing is set, in {user_config} or PNP_OVSS_DATA\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["config", "set", "data.vok21", "/x"], "unknown key 'data.vok21'; did you mean 'data.voc21'?"),
        (["config", "set", "voc21", "/x"], "unknown key 'voc21': keys are data.CARD, such as data.voc21"),
        (["config", "set", "data.voc21", "/none/x"], "data folder '/none/x' does not exist; voc21 needs the folder"),
        (["config", "set", "data.scenes", "/"], "dataset scenes is drawn, not read: it needs no folder"),
        (["config", "get", "data.voc21"], "data.voc21 is not set: `pnp-ovss config set data.voc21 FOLDER`"),
        (["config", "unset", "data.voc21"], "data.voc21 is not set in"),
        (["eval", "voc21"], "or once for all with `pnp-ovss config set data.voc21 FOLDER`"),
        (["check", "voc20"], "or once for all with `pnp-ovss config set data.voc20 FOLDER`"),
        (["ablate", "voc21", "--dry-run"], "or once for all with `pnp-ovss config set data.voc21 FOLDER`"),
        (["tune", "voc21"], "or once for all with `pnp-ovss config set data.voc21 FOLDER`"),
        (["candidates", "x", "--dataset", "folder"], "or once for all with `pnp-ovss config set data.folder FOLDER`"),
    ],
)
def test_what_is_wrong_or_missing_is_one_line(user_config, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    errors = [line for line in lines(done.stderr) if not line.startswith("Checking")]
    assert (done.exit_code, len(errors)) == (2, 1), done.output
    assert says in errors[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["eval"], ["check"], ["tune"], ["ablate"], ["ablate", "--dry-run"]])
def test_root_that_is_gone_is_one_line_in_every_command(user_config, tmp_path, monkeypatch, command):
    gone = tmp_path / "gone"
    gone.mkdir()
    set_root("voc21", str(gone))
    gone.rmdir()
    monkeypatch.chdir(tmp_path)
    done = call(command[0], "voc21", *command[1:])
    assert (done.exit_code, len(lines(done.stderr))) == (2, 1), done.output
    assert f"data folder '{gone}' does not exist" in done.stderr
    assert f"the configuration file '{user_config}' names this folder for voc21" in done.stderr
    assert "`pnp-ovss config set data.voc21 FOLDER`" in done.stderr


def test_root_is_taken_as_if_it_were_given(user_config, voc):
    given = {kind: Given(kind, {"dataset": "voc21", "out": "x", "data": voc}).config() for kind in KINDS}
    set_root("voc21", voc)
    for kind in KINDS:
        assert Given(kind, {"dataset": "voc21", "out": "x"}).config() == given[kind]
    told = plan_eval(Given(EvalConfig, {"dataset": "voc21", "out": "x"}).config())
    assert told.masks.fingerprint == plan_eval(given[EvalConfig]).masks.fingerprint
    own = Given(TuneConfig, {"classes": ["cat", "dog"], "out": "x"}).config()
    assert own.data is None


KINDS = (EvalConfig, TuneConfig, AblateConfig)


def test_yaml_counts_more_than_the_root(user_config, tmp_path):
    set_root("voc21", str(tmp_path))
    (tmp_path / "c.yaml").write_text("data: /elsewhere\n")
    config = Given(EvalConfig, {"dataset": "voc21", "out": "x", "config_file": str(tmp_path / "c.yaml")}).config()
    assert config.data == "/elsewhere"


def test_check_and_candidates_need_no_data_option(user_config, voc, tmp_path):
    call("config", "set", "data.voc21", voc)
    assert (
        call("check", "voc21", "--json").stdout.splitlines()[-1]
        == (call("check", "voc21", "--data", voc, "--json").stdout.splitlines()[-1])
    )
    (tmp_path / "classes.txt").write_text("car\nkey\n")
    (tmp_path / "answers.json").write_text('{"a": ["car"], "b": ["key"]}')
    call("config", "set", "data.folder", tmp_path)
    told = call("candidates", tmp_path / "answers.json", "--dataset", "folder", "--json")
    assert summary_of(told)["entries"] == 2
    assert f"folder: data from {tmp_path}, as `pnp-ovss config list` says" in told.stderr


def test_eval_of_a_told_dataset_needs_its_name_alone(user_config, voc, tmp_path, monkeypatch, prefect_server):
    (tmp_path / "fast.yaml").write_text("limit: 2\nshards: 1\nmasks: {crf: {name: 'off'}}\n")
    fast = ("--preset", "tiny", "--config", tmp_path / "fast.yaml", "--json")
    monkeypatch.chdir(tmp_path)
    given = summary_of(call("eval", "voc21", "--data", voc, *fast))
    assert given["out"] == "runs/eval-voc21"
    call("config", "set", "data.voc21", voc)
    told = summary_of(call("eval", "voc21", *fast))
    assert [told[key] for key in ("out", "masks", "labelled")] == [given[key] for key in ("out", "masks", "labelled")]
    resumed = {stage: told["stages"][stage]["images_resumed"] for stage in ("salience", "masks", "scores")}
    assert resumed == {"salience": 2, "masks": 2, "scores": 2}


def test_flow_finds_the_root_of_its_machine_and_a_run_folder_in_its_home(
    user_config, voc, tmp_path, monkeypatch, prefect_server
):
    monkeypatch.setenv("HOME", str(tmp_path))
    set_root("voc21", voc)
    values = {"dataset": "voc21", "limit": 1, "shards": 1, "preset": "tiny", "masks": {"crf": {"name": "off"}}}
    summary = evaluate_dataset(EvalConfig.model_validate({"out": usual_out("eval-voc"), **values}))
    assert (summary.out, summary.labelled) == (f"{tmp_path}/pnp-ovss/eval-voc", 1)
    recorded = json.loads((tmp_path / "pnp-ovss" / "eval-voc" / "run.json").read_text())["config"]
    assert (recorded["data"], recorded["out"]) == (voc, summary.out)


def test_deployments_of_datasets_lack_nothing_but_the_data():
    """Prefect checks a run's parameters before a worker sees them; `out` is required."""
    deployments = yaml.safe_load(prefect_file().read_text())["deployments"]
    named = [d for d in deployments if d["name"].startswith(("eval-", "tune-"))]
    assert len(named) == 12
    for deployment in named:
        config = deployment["parameters"]["config"]
        assert config["out"] == usual_out(deployment["name"])
        (EvalConfig if deployment["name"].startswith("eval-") else TuneConfig).model_validate(config)


def test_run_gives_a_deployment_the_root_of_this_machine(user_config, tmp_path):
    set_root("voc21", str(tmp_path))
    assert _told_data({"dataset": "voc21"}) == str(tmp_path)
    assert _told_data({"dataset": "voc21", "data": "s3://b"}) is None
    assert _told_data({"dataset": "scenes"}) is None
    assert _told_data({"dataset": "folder", "classes": ["cat"]}) is None
    assert _told_data({"source": "photos"}) is None


def test_label_has_a_run_folder_by_its_source_and_leaves_that_of_another(tmp_path, monkeypatch, prefect_server):
    for folder in ("photos", "b/photos"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (32, 24), (200, 30, 30)).save(tmp_path / folder / "a.png")
    monkeypatch.chdir(tmp_path)
    options = ("--classes", "car,key", "--preset", "tiny")
    done = summary_of(call("label", "photos/", *options, "--json"))
    assert (done["out"], done["labelled"]) == ("runs/label-photos", 1)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("*.parquet")}
    other = call("label", "b/photos", *options)
    assert other.exit_code == 2
    assert "'runs/label-photos' holds a run of" in other.stderr
    assert "choose another --out" in other.stderr
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("*.parquet")}
