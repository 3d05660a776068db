"""What holds for the repository as a whole."""

import ast
import csv
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from flows.server.stack import QUEUES
from pnp_core.config import CorpusConfig, TablesConfig

ROOT = Path(__file__).parent.parent


def tracked(*patterns: str) -> list[str]:
    done = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return done.stdout.splitlines()


def test_datasets_folder_holds_no_python():
    assert not list((ROOT / "datasets").rglob("*.py"))


def test_no_lock_file_and_no_download_address_is_tracked():
    assert not tracked("uv.lock", "poetry.lock", "pdm.lock")
    assert "://" not in (ROOT / "uv.toml").read_text()


def test_every_dependency_is_pinned_by_name_and_version():
    pinned = tomllib.loads((ROOT / "uv.toml").read_text())["constraint-dependencies"]
    names = {re.split(r"[=<>! ;\[]", entry)[0].lower() for entry in pinned}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    assert {re.split(r"[=<>! ;\[]", entry)[0].lower() for entry in wanted} <= names
    assert all("==" in entry for entry in pinned)


def test_layers_import_downwards_only():
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


DEPLOYMENT_KEYS = {
    "name", "description", "entrypoint", "parameters", "tags", "work_pool", "concurrency_limit", "schedules",
}  # fmt: skip
"""Prefect deploys a misspelt key in silence."""


def deployments() -> list[dict]:
    return yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


@pytest.mark.parametrize("deployment", deployments(), ids=lambda deployment: deployment["name"])
def test_deployment_fits_its_flow(deployment):
    assert set(deployment) <= DEPLOYMENT_KEYS
    assert set(deployment["work_pool"]) == {"name", "work_queue_name", "job_variables"}
    assert (deployment["work_pool"]["name"], deployment["work_pool"]["work_queue_name"]) in {("pnp", q) for q in QUEUES}
    module, name = deployment["entrypoint"].rsplit(".", 1)
    flow = getattr(importlib.import_module(module), name)
    annotations = inspect.get_annotations(flow.fn, eval_str=True)
    given = deployment.get("parameters", {})
    assert set(given) <= set(annotations)
    assert len(deployment["description"]) > 60
    assert "pnp-ovss" in deployment["tags"]
    if "config" in annotations:
        model = annotations["config"]
        needed = {
            CorpusConfig: {"source": "s3://bucket/corpus", "classes": ["cat"]},
            TablesConfig: {"runs": ["s3://bucket/run"]},
        }
        model.model_validate({"out": "s3://bucket/out", **needed.get(model, {}), **given.get("config", {})})


def test_every_deployment_that_people_rely_on_is_there():
    names = [(deployment["entrypoint"].rsplit(".", 1)[1], deployment["name"]) for deployment in deployments()]
    data = ("scenes", "voc", "context", "coco-object", "coco-stuff", "ade20k")
    expected = [("evaluate_dataset", f"eval-{name}") for name in data]
    expected += [("label_corpus", "label-corpus"), ("make_tables", "tables"), ("extract_batch", "gpu")]
    expected += [("tune_dataset", f"tune-{name}") for name in data]
    assert names == expected
    schedules = {d["name"]: d["schedules"] for d in deployments() if "schedules" in d}
    assert [schedule["active"] for schedule in schedules.pop("label-corpus")] == [False]
    assert schedules == {}


def test_table_of_the_readme_is_the_one_the_commands_made():
    rows = csv.DictReader((ROOT / "docs/demo/ablation.csv").open(encoding="utf-8"))
    made = [(row["row"], row["text"]) for row in rows]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    written = re.findall(r"^\| (.+?) \| (\d+\.\d) \|$", readme, re.MULTILINE)
    assert written == made != []


@pytest.mark.parametrize("folder", ["benchmarks", "training"])
def test_scripts_import_what_there_is(folder):
    missing = []
    for file in tracked(f"{folder}/**.py"):
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("pnp_core", "flows", "tasks")):
                module = importlib.import_module(node.module or "")
                missing += [f"{file}: {node.module}.{a.name}" for a in node.names if not there_is(module, a.name)]
    assert not missing


def there_is(module: ModuleType, name: str) -> bool:
    """Whether a module has a name, or a package a module of it."""
    package = hasattr(module, "__path__")
    return hasattr(module, name) or (package and importlib.util.find_spec(f"{module.__name__}.{name}") is not None)


def test_deployments_name_no_path_of_a_machine():
    text = (ROOT / "prefect.yaml").read_text()
    assert yaml.safe_load(text)["pull"] == []
    settings = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    values = yaml.safe_dump([{k: v for k, v in d.items() if k != "description"} for d in deployments()])
    values = values.replace("~/pnp-ovss/", "")  # a home that every machine has
    assert "/" not in values.replace("*", ""), "a path, or an entry point by file"
    assert "localhost" not in "".join(settings)
    assert "127.0.0.1" not in "".join(settings)


@pytest.mark.parametrize(
    ("folders", "most"),
    [
        (("_tiny", "_tiny_clip", "_photo"), 25_000_000),
        (("_tiny_vit_clip",), 10_000_000),
        (("_photographs",), 1_500_000),
    ],
)
def test_what_is_bundled_is_small(folders, most):
    assert sum(f.stat().st_size for folder in folders for f in (ROOT / "pnp_core" / folder).iterdir()) < most


@pytest.mark.ops
def test_wheel_holds_cards_and_weights_and_runs_from_another_directory(tmp_path):
    uv = Path(sys.executable).parent / "uv"
    command = [uv if uv.exists() else "uv", "build", "--wheel", "--out-dir", tmp_path, ROOT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("uv is not on the path")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {
        "pnp_core/_cards/scenes.yaml",
        "pnp_core/_tiny/model.safetensors",
        "flows/cli/__init__.py",
        "flows/_prefect.yaml",
    } <= names
    assert not any(name.startswith(("datasets/", "tests/", "training/")) for name in names)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import pnp_core\n"
        "from pnp_core.inputs.cards import available_cards\n"
        "from pnp_core.methods.pnp.backbones import locate_checkpoint\n"
        "from pnp_core.methods.pnp.config import BackboneConfig\n"
        "print(pnp_core.__file__, available_cards()['scenes'], locate_checkpoint(BackboneConfig()).folder)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "site"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert all(place.startswith(str(tmp_path / "site")) for place in ran.stdout.split())


def test_documents_have_no_gaps_left():
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert not [file.name for file in documents if "@@" in file.read_text(encoding="utf-8")]
