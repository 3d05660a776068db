"""A folder that grows, and `label-corpus` over it."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from pnp_core.inputs.images import decode_label_map

runner = CliRunner()
OLD = time.time() - 3600


def image(seed: int, size: tuple[int, int] = (24, 32)) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def put(folder: Path, name: str, data: bytes, changed: float = OLD) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    os.utime(folder / name, (changed, changed))


TINY = ("--preset", "tiny")


def run(folder: Path | str, out: Path, *options: str, code: int = 0) -> dict:
    command = [
        "label-corpus",
        str(folder),
        "--classes",
        "heart,star",
        "--out",
        str(out),
        *TINY,
        "--json",
        *options,
    ]
    result = runner.invoke(app, command)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout.strip().splitlines()[-1]) if code == 0 else {"said": result.stderr}


def latest(out: Path) -> tuple[dict, dict[str, dict]]:
    """What a training job reads: latest.json, and the manifest's rows by source."""
    pointer = json.loads((out / "latest.json").read_text())
    rows = pq.read_table(out / pointer["manifest"]).to_pylist()
    return pointer, {row["source"]: row for row in rows}


def mask_of(out: Path, row: dict) -> np.ndarray:
    table = pq.read_table(out / row["masks"], filters=[("key", "=", row["key"])]).to_pylist()
    assert len(table) == 1
    return decode_label_map(table[0]["mask"]["bytes"])


def labelled_in(out: Path, number: int) -> set[str]:
    """Pictures that one run labelled."""
    files = (out / f"batches/{number:06d}").glob("masks/*/*.parquet")
    return {row["source"] for f in files for row in pq.read_table(f, columns=["source"]).to_pylist()}
