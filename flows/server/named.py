"""Whether the user has named a Prefect server, found out without importing Prefect where nothing hints at one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

API_URL = "PREFECT_API_URL"


def is_server_named() -> bool:
    """Whether the environment, or a file that Prefect reads its settings from, names a server."""
    if os.environ.get(API_URL):
        return True
    if not any(_hints(file) for file in _settings_files()):
        return False
    from prefect.settings import PREFECT_API_URL  # what counts, and of which profile, is Prefect's to say

    return bool(PREFECT_API_URL.value())


def _settings_files() -> Iterator[Path]:
    """Where Prefect looks for settings beside the environment."""
    yield from (Path(".env"), Path("prefect.toml"), Path("pyproject.toml"))
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    yield Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()


def _hints(file: Path) -> bool:
    """Whether a file may set the address: as `PREFECT_API_URL`, or as `url` in the part `api` of Prefect's TOML."""
    try:
        text = file.read_text(errors="replace").lower()
    except OSError:
        return False
    in_toml = file.name == "prefect.toml" or "tool.prefect" in text
    return API_URL.lower() in text or (in_toml and "api" in text and "url" in text)
