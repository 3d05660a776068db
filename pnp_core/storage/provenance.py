"""What made a result: versions, commit, memory."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from pnp_core.bundled import PACKAGE

_PACKAGES = (
    "pnp-ovss",
    "torch",
    "transformers",
    "pydensecrf2",
    "prefect",
    "numpy",
    "pillow",
    "pyarrow",
    "webdataset",
    "open-clip-torch",
    "gradient-free-optimizers",
)


def versions() -> dict[str, str]:
    """Installed versions of what results depend on."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def commit() -> str | None:
    """Commit of the code that runs, `+` behind it when files were changed since; None when that cannot be told.

    It is known of a checkout, and of a package that pip installed from a repository.
    """
    checkout = PACKAGE.resolve().parent
    # Not of a repository that a venv happens to lie in.
    if _git(checkout, "rev-parse", "--show-toplevel") == str(checkout):
        changed = _git(checkout, "status", "--porcelain", "--untracked-files=no")
        return f"{_git(checkout, 'rev-parse', 'HEAD')}{'+' if changed else ''}"
    origin = distribution("pnp-ovss").read_text("direct_url.json")
    return json.loads(origin).get("vcs_info", {}).get("commit_id") if origin else None


def _git(checkout: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory() -> dict[str, int]:
    """Most memory this process ever had, in bytes: `host`, and `device` where it used a GPU."""
    import resource

    import torch

    unit = 1 if sys.platform == "darwin" else 1024
    peaks = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        peaks["device"] = torch.cuda.max_memory_allocated()
    return peaks
