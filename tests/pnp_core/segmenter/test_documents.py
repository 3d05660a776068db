"""What docs/python.md and the notebook show is what happens."""

from __future__ import annotations

import ast
import doctest
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pnp_core.bundled import PACKAGE

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(autouse=True)
def beside_a_photograph(tmp_path, monkeypatch) -> Path:
    shutil.copy(PACKAGE / "_photographs/cat.jpg", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_document_says_what_python_does_and_nothing_is_written(beside_a_photograph):
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    examples = "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    test = doctest.DocTestParser().get_doctest(examples, {}, "python.md", str(DOCS / "python.md"), 0)
    said: list[str] = []
    options = doctest.NORMALIZE_WHITESPACE
    result = doctest.DocTestRunner(optionflags=options).run(test, out=said.append)
    assert result.attempted > 15
    assert not result.failed, "".join(said)
    assert [file.name for file in beside_a_photograph.iterdir()] == ["cat.jpg"]


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """What a notebook shows of a cell: the value of its last line, where that is an expression."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "python.ipynb", "exec"), names)
    return eval(compile(ast.Expression(last.value), "python.ipynb", "eval"), names) if last else None


def test_the_notebook_runs_from_top_to_bottom_and_is_kept_without_outputs(beside_a_photograph):
    notebook = json.loads((DOCS / "python.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)
    names: dict[str, Any] = {}
    shown = {cell["id"]: run_cell("".join(cell["source"]), names) for cell in cells}
    assert shown["segment"]._repr_png_().startswith(b"\x89PNG")
    assert shown["numbers"][1] == ("background", "cat", "traffic light")
    assert len(shown["list"]) == 3
    assert isinstance(shown["overlay"], Image.Image)
    assert [file.name for file in beside_a_photograph.iterdir()] == ["cat.jpg"]
