"""One declaration of an option: the models say what it is, means and is by default; the command line where it goes."""

import json
import re
import subprocess
import sys
from typing import Annotated, Literal

import jsonschema
import pytest
import typer
import yaml
from pydantic import Field
from rich.markup import render
from typer.testing import CliRunner

from flows.cli import app
from flows.cli.configuration import FLOWS
from flows.cli.fields import field_at
from flows.cli.options import BACKBONE, Given
from pnp_core.config import EvalConfig
from pnp_core.configuring import keys_of
from pnp_core.errors import PnpError, UsageError
from pnp_core.frozen import Config
from pnp_core.tuning.config import TuneConfig

runner = CliRunner()
COMMANDS = typer.main.get_command(app).commands
TAKING = {name: command.callback.takes for name, command in COMMANDS.items() if hasattr(command.callback, "takes")}
OF_FLOWS = {"eval", "label", "label-corpus", "tune", "ablate"}
ABOUT_THE_COMMAND = {"param", "strict", "as_json", "debug", "verbose", "quiet", "dry_run", "help"}
"""Parameters that stand for no field."""


def help_of(command: str) -> str:
    """As people read it, in one line and without the frame."""
    shown = runner.invoke(app, [command, "--help"], env={"COLUMNS": "160", "TERM": "dumb"}).stdout
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", shown).split())


def received(command: str, arguments: list[str], monkeypatch) -> Given:
    """What a command's options come to."""
    got: list[Given] = []

    def stop(given: Given, *_, **__) -> None:
        got.append(given)
        raise PnpError("far enough")

    monkeypatch.setattr(Given, "config", stop)
    assert "far enough" in runner.invoke(app, [command, *arguments]).stderr
    return got[0]


def refused(arguments: list[str], message: str) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.strip().splitlines() == [f"error: {message}"]


def test_commands_that_take_a_configuration_are_these():
    assert set(TAKING) == OF_FLOWS | {"demo", "tables", "check", "candidates", "doctor"}
    assert {name for name, c in COMMANDS.items() if any(p.name == "param" for p in c.params)} == OF_FLOWS | {"doctor"}


@pytest.mark.parametrize("command", TAKING)
def test_no_option_that_stands_for_a_field_has_a_help_of_its_own(command):
    model, parameters = TAKING[command]
    helps = {parameter.name: parameter.help(model) for parameter in parameters}
    for parameter in COMMANDS[command].params:
        if parameter.name in helps:
            assert parameter.help == helps[parameter.name]
        else:
            assert parameter.name in ABOUT_THE_COMMAND | ({"dataset", "data"} if command == "candidates" else set())


@pytest.mark.parametrize("command", TAKING)
def test_help_is_the_first_paragraph_of_the_fields_description(command):
    model, parameters = TAKING[command]
    shown = help_of(command)
    for parameter in parameters:
        described = field_at(model, parameter.path).description
        assert described, parameter.path
        first = " ".join(described.split("\n\n")[0].split())
        assert " ".join(first.replace("`", "").split()[:3]) in shown
        assert render(parameter.help(model)).plain.startswith(first.replace("`", ""))
        assert len(first) < 200, f"{parameter.path}: an empty line ends what the help shows"


@pytest.mark.parametrize("command", TAKING)
def test_every_value_of_a_closed_list_is_in_the_help(command):
    model, parameters = TAKING[command]
    for parameter in parameters:
        closed = re.findall(r"Literal\[(.+?)\]", str(field_at(model, parameter.path).annotation))
        values = re.findall(r"\w+", " ".join(closed))
        shown = re.findall(r"\w+", render(parameter.help(model)).plain)
        assert set(values) <= set(shown), parameter.path


def test_help_shows_the_default_of_the_model():
    assert "[default: 30]" in help_of("label")
    assert "Pictures to tune on, drawn at random by the search's seed. [default: 100]" in help_of("tune")
    assert "or local-dir:FOLDER. [default: ViT-L-14-336 (authors, paper, photo), tiny]" in help_of("tune")
    assert "[default: ablation,iterations,thresholds]" in help_of("ablate")


def test_help_shows_what_the_presets_and_the_flow_lay_over_the_model():
    shown = help_of("eval")
    assert "counted from 0. [default: 7 (authors, paper), 0 (tiny, photo)]" in shown
    assert "(docs/candidates.md). [default: labels]" in shown
    assert "(docs/candidates.md). [default: itm]" in help_of("label")


def test_default_of_a_required_option_is_not_shown():
    assert "[default: scenes]" not in help_of("eval")


def test_help_shows_no_backticks_of_the_descriptions():
    for command in OF_FLOWS:
        assert "`" not in help_of(command)


def test_candidates_file_implies_the_source(monkeypatch):
    given = received("label", ["x", "--classes", "a,b", "--out", "o", "--candidates-file", "f.csv"], monkeypatch)
    assert given.values["salience"] == {"candidates": {"source": "file", "file": "f.csv"}}
    assert given.values["classes"] == ["a", "b"]
    more = ["--candidates", "clip", "--candidates-file", "f.csv"]
    given = received("label", ["x", "--classes", "a", "--out", "o", *more], monkeypatch)
    assert given.values["salience"]["candidates"]["source"] == "clip"


def test_options_go_where_the_configuration_has_them(monkeypatch):
    flags = "--reward authors --clip tiny --compare full --trials 7 --no-follow-links --exclude a --exclude b"
    given = received("tune", ["scenes", *flags.split(), "--batch-size", "3"], monkeypatch)
    assert given.values == {
        "dataset": "scenes", "reward": {"kind": "authors", "clip": {"model": "tiny"}}, "compare": {"masks": "full"},
        "search": {"trials": 7}, "follow_links": False, "exclude": ["a", "b"], "runtime": {"batch_size": "3"},
    }  # fmt: skip


def test_all_tables_are_the_list_that_the_model_has(monkeypatch):
    given = received("ablate", ["scenes", "--out", "o", "--tables", "all"], monkeypatch)
    assert given.values["tables"][0] == "ablation"
    assert len(given.values["tables"]) == 7


def test_param_is_yaml_at_a_nested_key_and_the_last_word(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"masks": {"threshold": 0.3, "blur": 0.01}}))
    given = Given(EvalConfig, {"out": "x", "config_file": str(tmp_path / "c.yaml"), "limit": 5, "png": False})
    config = given.config(["masks.threshold=0.25", "limit=7", "masks.crf={name: torch}", "only_classes=[a, b]"])
    assert (config.masks.threshold, config.masks.blur, config.limit, config.png) == (0.25, 0.01, 7, False)
    assert (config.masks.crf.name, config.masks.crf.iterations) == ("torch", 10)
    assert config.only_classes == ("a", "b")


def test_param_may_name_another_preset_and_file(tmp_path):
    (tmp_path / "c.yaml").write_text("masks: {threshold: 0.3}")
    config = Given(TuneConfig, {"out": "x"}).config(["preset=paper", f"settings={tmp_path / 'c.yaml'}"])
    assert (config.preset, config.masks.threshold) == ("paper", 0.3)


def test_file_made_for_other_weights_is_refused_whoever_names_them(tmp_path):
    (tmp_path / "best.yaml").write_text("salience: {backbone: {checkpoint: tiny}}")
    refused(
        ["eval", "scenes", "--out", "x", "--config", str(tmp_path / "best.yaml"), "-p", f"{BACKBONE}.checkpoint=o/n"],
        f"'{tmp_path}/best.yaml' was made for checkpoint tiny; leave out --checkpoint o/n",
    )


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("masks.treshold=1", "configuration: unknown key 'masks.treshold'; did you mean 'masks.threshold'?"),
        ("threshold=1", "configuration: unknown key 'threshold'; did you mean 'masks.threshold'?"),
        (
            "runtime.zzz=1",
            "configuration: unknown key 'runtime.zzz'; 'runtime' has batch_size, device, overlap, threads",
        ),
        ("masks={crf: {nane: off}}", "configuration: unknown key 'masks.crf.nane'; did you mean 'masks.crf.name'?"),
        ("masks.threshold", "-p masks.threshold: expected KEY=VALUE, such as -p out=/data/runs/voc"),
        ("masks.threshold=2", "configuration: masks.threshold: Input should be less than 1"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["eval", "scenes", "--out", "o"], ["label", "x", "--classes", "a", "--out", "o"], ["tune", "scenes"],
        ["label-corpus", "x", "--classes", "a", "--out", "o"], ["ablate", "scenes", "--out", "o", "--dry-run"],
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_param_that_does_not_fit_is_refused_in_one_line(command, parameter, message):
    refused([*command, "-p", parameter], message)


@pytest.mark.parametrize("flow", FLOWS)
def test_schema_is_one_that_describes_every_key(flow):
    printed = runner.invoke(app, ["config", "schema", flow])
    assert printed.exit_code == 0
    schema = json.loads(printed.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    for part in (schema, *schema.get("$defs", {}).values()):
        for name, field in part.get("properties", {}).items():
            assert "description" in field or "$ref" in field or "oneOf" in field, f"{part['title']}.{name}"


@pytest.mark.parametrize("command", sorted(OF_FLOWS | {"tables"}))
def test_schema_has_the_field_of_every_flag(command):
    model, parameters = TAKING[command]
    flow = "corpus" if command == "label-corpus" else command
    keys = keys_of(json.loads(runner.invoke(app, ["config", "schema", flow]).stdout))
    assert FLOWS[flow] is model
    assert {parameter.path for parameter in parameters} <= set(keys)


def test_schema_refuses_what_the_flow_refuses():
    schema = json.loads(runner.invoke(app, ["config", "schema"]).stdout)
    jsonschema.validate({"out": "x", "masks": {"threshold": 0.2}}, schema)
    with pytest.raises(jsonschema.ValidationError, match="treshold"):
        jsonschema.validate({"out": "x", "masks": {"treshold": 0.2}}, schema)


def test_schema_of_an_unknown_flow_is_one_line():
    refused(["config", "schema", "evil"], "unknown flow 'evil'; did you mean 'eval'? available: "
            "ablate, corpus, eval, label, tables, tune")  # fmt: skip


def test_schema_and_help_import_neither_torch_nor_prefect():
    code = (
        "import sys; from typer.testing import CliRunner; from flows.cli import app\n"
        "for command in (['config', 'schema'], ['label', '--help']):\n"
        "    assert CliRunner().invoke(app, command).exit_code == 0\n"
        "print([name for name in ('torch', 'prefect', 'transformers', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_path_of_a_field_is_walked_through_optional_parts_and_unions():
    class Cat(Config):
        name: Literal["cat"] = "cat"
        whiskers: int = 3
        """How many."""

    class Dog(Config):
        name: Literal["dog"] = "dog"
        tail: bool = True

    class House(Config):
        animal: Annotated[Cat | Dog, Field(discriminator="name")] | None = Cat()

    assert field_at(House, "animal.whiskers").description == "How many."
    assert field_at(House, "animal.tail").default is True
    assert set(keys_of(House.model_json_schema())) == {"animal", "animal.name", "animal.whiskers", "animal.tail"}
    with pytest.raises(KeyError):
        field_at(House, "animal.wings")


def test_run_names_the_nearest_key_of_a_deployments_schema():
    from prefect.utilities.callables import parameter_schema

    from flows.evaluation import evaluate_dataset
    from flows.server.deployment_runs import _refuse_unknown_key

    schema = parameter_schema(evaluate_dataset).model_dump()
    _refuse_unknown_key({"limit": "many", "salience": {"layer": 7}, "preset": "autors"}, schema, "config.")
    with pytest.raises(UsageError, match=r"configuration: unknown key 'limt'; did you mean 'limit'\?"):
        _refuse_unknown_key({"out": "x", "limt": 3}, schema, "config.")
