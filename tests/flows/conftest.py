"""Fixtures that several files share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, Path]:
    """A folder that is to grow, and where its labels go."""
    return tmp_path / "corpus", tmp_path / "out"
