"""What dispatch costs per shard: the three modes on scenes with 12 shards, on the stack of `pnp-ovss up`.

    pnp-ovss up && python -m benchmarks.dispatch

The same small shards by every mode; masks are compared byte for byte. What a mode takes besides the seconds that
the stages themselves spent is its overhead. Start of the processes is included: a batch pays it once.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

from flows.server.stack import use_stack

MODES: dict[str, dict[str, Any]] = {
    "inline": {},
    "deployment": {"mode": "deployment"},
    "dask": {"mode": "dask", "workers": 1},
}


def masks(out: Path) -> dict[str, str]:
    """Digests of the masks."""
    files = sorted((out / "masks").rglob("*.parquet"))
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def main() -> None:
    """Run all modes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--shards", type=int, default=12)
    arguments = parser.parse_args()
    use_stack()
    from flows.evaluation import evaluate_dataset
    from pnp_core.config import EvalConfig
    from pnp_core.runs.plan import plan_eval

    first: dict[str, str] = {}
    base = 0.0
    print("mode        seconds  over inline  per shard  masks")
    with tempfile.TemporaryDirectory() as folder:
        for name, dispatch in MODES.items():
            values = {"out": f"{folder}/{name}", "limit": arguments.images, "shards": arguments.shards}
            config = EvalConfig.model_validate({**values, "dispatch": dispatch, "runtime": {"threads": 1}})
            plan_eval(config).salience.load()  # this process has it loaded, as workers have theirs from shard 2 on
            start = monotonic()
            evaluate_dataset(config)
            seconds = monotonic() - start
            found = masks(Path(folder) / name)
            first, base = first or found, base or seconds
            same = "same" if found == first else "DIFFER"
            over = seconds - base
            print(f"{name:10s} {seconds:8.1f} {over:12.1f} {over / arguments.shards:10.2f}  {same}", flush=True)


if __name__ == "__main__":
    main()
