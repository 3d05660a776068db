"""Other processes that tests need beside them."""

from __future__ import annotations

import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 300) -> Any:
    """Poll until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.05)
    return found


def run_script(file: Path, *arguments: Path | str) -> None:
    """Run a script as `python FILE ARGUMENTS` does, in this process: what it imports is there already."""
    with pytest.MonkeyPatch.context() as here:
        here.setattr(sys, "argv", [str(file), *map(str, arguments)])
        runpy.run_path(str(file), run_name="__main__")


_HOLD = """
import sys
from contextlib import ExitStack
from pnp_core.storage.ownership import writing
with ExitStack() as stack:
    for out, kind in zip(sys.argv[1::2], sys.argv[2::2]):
        stack.enter_context(writing(out, kind))
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def somebody_writing_to(*outs_and_kinds: Path | str) -> Iterator[int]:
    """Another process that holds the locks of folders while the block runs; gives its number."""
    command = [sys.executable, "-c", _HOLD, *map(str, outs_and_kinds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        try:
            yield process.pid
        finally:
            process.stdin.close()
