"""Commands in this process."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from flows.cli import app


def call(*arguments: Path | str) -> Result:
    """What a command says, however it ends."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def summary_of(done: Result) -> dict:
    """What `--json` prints of a command that ended well."""
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
