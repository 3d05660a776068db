"""What runs leave, to be compared."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pnp_core.storage.files import MARK

_TIMINGS = ("run.json", "index.html")


def artifacts(out: Path) -> dict[str, str]:
    """Digests of all a run leaves but what holds timings: run.json, the report, and the list of what is ours."""
    files = (file for file in out.rglob("*") if file.is_file() and file.name not in _TIMINGS)
    kept = (file for file in files if MARK not in file.relative_to(out).parts)
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in kept}
