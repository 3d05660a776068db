"""Weights, salience and masks are finite, or the run says so and stops; no mask is made of NaN."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import pnp_core
from flows.cli import app
from pnp_core.errors import CheckpointError, ShardError
from pnp_core.finite import check_weights, require_finite
from tests.processes import run_script

TINY = Path(pnp_core.__file__).parent / "_tiny"
runner = CliRunner()


def changed(folder: Path, tensor: str, change) -> Path:
    """The bundled model with one tensor changed."""
    shutil.copytree(TINY, folder)
    tensors = load_file(folder / "model.safetensors")
    (name,) = (name for name in tensors if name.endswith(tensor))
    tensors[name] = change(tensors[name].copy())
    save_file(tensors, folder / "model.safetensors")
    return folder


def poisoned(values: np.ndarray) -> np.ndarray:
    values.flat[7] = np.nan
    return values


def call(*command: str) -> tuple[int, str]:
    result = runner.invoke(app, list(command))
    assert "Traceback" not in result.output
    return result.exit_code, " ".join(result.output.split())


COMMANDS = {
    "eval": ["eval", "scenes", "--limit", "4"],
    "tune": ["tune", "scenes", "--images", "4", "--trials", "2", "--compare", "off"],
}


def test_nan_in_the_text_side_stops_label_before_any_mask(shared_data, tmp_path):
    case = shared_data / "wild/nan-weights"
    run_script(case / "make.py", tmp_path / "model")
    given = ["--classes", "cat,dog", "--candidates", "vocabulary", "--preset", "tiny"]
    out = tmp_path / "out"
    code, said = call("label", str(case), *given, "--checkpoint", str(tmp_path / "model"), "--out", str(out))
    assert code == 2, said
    assert "holds NaN or infinity in tensor 'text_encoder.embeddings.LayerNorm.weight'" in said
    assert not list(out.glob("masks/*/*.parquet"))


@pytest.mark.parametrize("command", COMMANDS)
def test_weights_with_nan_are_refused_and_the_tensor_is_named(tmp_path, command):
    folder = changed(tmp_path / "model", "itm_head.weight", poisoned)
    out = tmp_path / "out"
    code, said = call(*COMMANDS[command], "--checkpoint", str(folder), "--preset", "tiny", "--out", str(out))
    assert code == 2, said
    assert "holds NaN or infinity in tensor 'itm_head.weight'" in said
    assert not list(out.glob("masks/*/*.parquet"))


@pytest.mark.parametrize("command", COMMANDS)
def test_weights_that_overflow_end_the_run_with_the_picture_and_no_mask(tmp_path, command):
    folder = changed(
        tmp_path / "model", "itm_head.weight", lambda values: np.full_like(values, np.finfo(values.dtype).max)
    )
    out = tmp_path / "out"
    code, said = call(*COMMANDS[command], "--checkpoint", str(folder), "--preset", "tiny", "--out", str(out))
    assert code == 1, said
    assert "shards failed: the " in said
    assert "is not finite (NaN or infinity)" in said
    assert not list(out.glob("masks/*/*.parquet"))
    rows = [row for file in out.glob("quarantine/*/*/*.parquet") for row in pq.read_table(file).to_pylist()]
    assert all("is not finite" in row["reason"] for row in rows)
    assert rows or command == "tune"


def test_every_kind_of_number_that_is_none_is_found():
    model = torch.nn.Linear(3, 2)
    check_weights(model, "the file")
    for value in (float("nan"), float("inf"), -float("inf")):
        with torch.no_grad():
            model.weight[1, 2] = value
        with pytest.raises(CheckpointError, match="the file holds NaN or infinity in tensor 'weight'"):
            check_weights(model, "the file")


def test_first_class_with_a_number_that_is_none_is_named():
    values = np.zeros((2, 3, 4))
    require_finite(values, "the salience", "a", ["cat", "dog"], "x")
    values[1, 0, 2] = np.inf
    with pytest.raises(ShardError, match="the salience of picture 'a' for class 'dog' is not finite"):
        require_finite(values, "the salience", "a", ["cat", "dog"], "x")
