"""What it costs to know that every artifact is whole and whose it is, as a share of a run.

    uv run python -m benchmarks.digests                # the 200 scenes of the demo, and the same again, resumed

All functions that compute or compare digests, and that read or write the list of what is ours, are timed in the run
itself; the share is of the whole flow without imports and server.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from pnp_core.storage import completion, files, ledger, ownership, run_folder, shards

TIMED: dict[str, list[tuple[Any, str]]] = {
    "digests": [(module, "sha256") for module in (completion, run_folder, shards)],
    "completion records": [(completion.StageFolder, "damage"), (completion.StageFolder, "record")],
    "list of what is ours": [
        *((module, name) for module in (run_folder, completion, shards) for name in ("claim_files", "claim_folders")),
        (run_folder, "forget_files"), (ledger.Ledger, "known"),
    ],
    "marker and lock": [(ownership, "check_ours"), (ownership, "claim"), (files.Files, "clear_half_written")],
}  # fmt: skip


class Clock:
    """Adds up the time in some functions; what one of them calls counts once, where it was called from."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(TIMED, 0.0)
        self._inside = False

    def around(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        @functools.wraps(function)
        def timed(*arguments: Any, **more: Any) -> Any:
            if self._inside:
                return function(*arguments, **more)
            self._inside, start = True, perf_counter()
            try:
                return function(*arguments, **more)
            finally:
                self._inside = False
                self.seconds[what] += perf_counter() - start

        return timed

    def install(self) -> None:
        """Time the functions wherever they are looked up."""
        for what, places in TIMED.items():
            for place, name in places:
                if (function := vars(place).get(name)) is None:
                    continue
                plain = function.__func__ if isinstance(function, classmethod) else function
                timed: Any = self.around(what, plain)
                setattr(place, name, classmethod(timed) if isinstance(function, classmethod) else timed)


def main() -> None:
    """Evaluate, evaluate again, and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    from flows.pipelines.evaluation import evaluate
    from pnp_core.config import EvalConfig

    with tempfile.TemporaryDirectory() as folder:
        evaluate(EvalConfig(out=f"{folder}/warm", limit=2))  # imports, model
        clock = Clock()
        clock.install()
        for what in ("run", "resumed"):
            clock.seconds.update(dict.fromkeys(TIMED, 0.0))
            start = perf_counter()
            evaluate(EvalConfig(out=f"{folder}/run", limit=options.images))
            total, spent = perf_counter() - start, sum(clock.seconds.values())
            parts = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in clock.seconds.items())
            print(f"{what}: {spent:.3f} s of {total:.1f} s, {spent / total:.1%} ({parts})", flush=True)
        held = sum(file.stat().st_size for file in Path(folder, "run").rglob("*") if file.is_file())
        print(f"{held / 1e6:.1f} MB in the run folder")


if __name__ == "__main__":
    main()
