"""CPU seconds (user + system, children included) of whole commands, of this checkout and of another one, in turn.

uv run python -m benchmarks.commands SOURCE --before OTHER_CHECKOUT [--demo]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parents[1]


def cpu_seconds(checkout: Path, *arguments: str) -> float:
    """Of a command of a checkout, with all processes that it has waited for."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    start = spent()
    subprocess.run(  # noqa: S603
        [checkout / ".venv/bin/pnp-ovss", *arguments], cwd=checkout, capture_output=True, check=True
    )
    return spent() - start


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder of photographs")
    parser.add_argument("--before", type=Path, required=True, help="checkout to compare with, with its .venv")
    parser.add_argument("--demo", action="store_true", help="the demo too, which takes minutes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        label = ("label", options.source, "--classes", "cat,dog,person,car", "--out")
        commands = {
            "label, first": (*label, "RUN"), "label, again": (*label, "RUN"),
            "export": ("export", "RUN", "--to", "png", "--out", "RUN-png"),
            "tables": ("tables", "RUN", "--out", "RUN-tables"),
            **({"demo": ("demo", "--out", "RUN-demo"), "demo, again": ("demo", "--out", "RUN-demo")}
               if options.demo else {}),
        }  # fmt: skip
        print("| command | before | after | ratio |\n|---|---|---|---|")
        for name, arguments in commands.items():
            before, after = (
                cpu_seconds(checkout, *(part.replace("RUN", f"{folder}/{which}") for part in arguments))
                for which, checkout in (("before", options.before), ("after", HERE))
            )
            print(f"| {name} | {before:.1f} | {after:.1f} | {after / before:.2f} |", flush=True)


if __name__ == "__main__":
    main()
