"""Other processes that tests need beside them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HOLD = """
import sys
from pnp_core.ownership import writing
with writing(sys.argv[1], sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def somebody_writing_to(out: Path, kind: str) -> Iterator[int]:
    """Another process that holds the lock of a folder while the block runs; gives its number."""
    command = [sys.executable, "-c", _HOLD, str(out), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        try:
            yield process.pid
        finally:
            process.stdin.close()
