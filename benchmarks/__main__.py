"""All of speed in one run, as ratios: what docs/speed.md says of the CRF, the stages, a busy core, and a fast device.

    uv run python -m benchmarks

It takes about half an hour on two cores that do nothing else. Growth, dispatch, other models and GPUs have commands of
their own: `benchmarks.growth`, `.dispatch`, `.backbones`, `.gpu` ...
"""

from __future__ import annotations

import subprocess
import sys

PARTS = ("crf", "stages", "busy", "device", "salience")


def main() -> None:
    """Run all parts, each in a process of its own."""
    for part in PARTS:
        print(f"\n## benchmarks.{part}\n", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{part}"], check=True, stderr=subprocess.DEVNULL)  # noqa: S603


if __name__ == "__main__":
    main()
