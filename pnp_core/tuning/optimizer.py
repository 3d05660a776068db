"""An optimizer of Gradient-Free-Optimizers in a process of its own, one JSON line a step.

    python -m pnp_core.tuning.optimizer

The library draws from Python's and NumPy's global random generators. Any other thread that draws
from them, a search beside this one or some library's back-off, would change its sequence, and a killed
search could not be replayed. Here nothing else runs.

Standard input: the request, then a reward per proposal. Standard output: proposals.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import gcd, prod
from typing import IO, Any

from pnp_core.errors import PnpError, UnknownNameError

GRID = "grid-search"
_ALIASES = {"random": "random-search", "grid": GRID}
_STEP = 0.3
"""Spread of a local optimizer's step as a share of a list. The library's 3% never leave a place in lists as short."""


class OptimizerError(PnpError):
    """The optimizer's process failed."""


def _optimizers() -> dict[str, str]:
    """Name -> class of the library."""
    import gradient_free_optimizers as library

    def spelled(name: str) -> str:
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name.removesuffix("Optimizer")).lower()

    return {spelled(name): name for name in sorted(library.__all__) if hasattr(getattr(library, name), "search")}


def optimizer_names() -> list[str]:
    """Names of all optimizers there are.

    >>> "random-search" in optimizer_names(), "grid-search" in optimizer_names()
    (True, True)
    """
    return list(_optimizers())


def optimizer_name(name: str) -> str:
    """The full name of an optimizer.

    Raises:
        UnknownNameError: there is none of that name.

    >>> optimizer_name("grid")
    'grid-search'
    """
    known = _optimizers()
    full = _ALIASES.get(name, name)
    if full not in known:
        raise UnknownNameError("optimizer", name, known)
    return full


def last_of_grid(sizes: Sequence[int]) -> tuple[int, ...]:
    """The place that the library's grid comes to last. It goes round all n places, counted row by row, from the first
    one in steps of about n^(1/axes) that have no divisor in common with n.

    >>> last_of_grid([7, 4]), last_of_grid([2, 6, 4])
    ((5, 3), (1, 5, 3))
    """
    import numpy as np

    number = prod(sizes)
    step = round(number ** (1 / len(sizes)))
    while gcd(number, step) > 1:
        step -= 1
    return tuple(int(place) for place in np.unravel_index((number - step) % number, sizes))


def _build(name: str, sizes: Sequence[int], seed: int, stream: int) -> Any:
    """One of the library's optimizers, such that its sequence follows from the seed alone."""
    import gradient_free_optimizers as library
    import numpy as np

    kind = getattr(library, _optimizers()[name])
    known = inspect.signature(kind.__init__).parameters
    # Not a sum of both, as the library would have it: stream 1 of seed 0 is not stream 0 of seed 1.
    state = int(np.random.SeedSequence([seed, stream]).generate_state(1)[0])
    options: dict[str, Any] = {"initialize": {"random": 1}}
    if name == GRID:
        # It begins with a place of our choice and then goes through all: the last one, not to meet one twice.
        options["initialize"] = {"warm_start": [{str(axis): place for axis, place in enumerate(last_of_grid(sizes))}]}
    if "epsilon" in known:
        options["epsilon"] = _STEP
    if "tree_para" in known:
        options["tree_para"] = {"n_estimators": 100, "random_state": state}
    space = {str(axis): np.arange(size) for axis, size in enumerate(sizes)}
    return kind(space, random_state=state, **options)


@contextmanager
def _process(errors: IO[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pnp_core.tuning.optimizer"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
        start_new_session=True,  # an interruption is for the search, which ends this process
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def optimize(
    name: str, sizes: Sequence[int], trials: int, seed: int, stream: int, reward: Callable[[tuple[int, ...]], float]
) -> None:
    """Let an optimizer propose positions, one after the other, and reward each.

    Args:
        name: full name of an optimizer.
        sizes: number of places along each axis.
        trials: how many proposals.
        seed: of the sequence.
        stream: sequences of one seed, such as those of groups.
        reward: called with a position, one index per axis; higher is better.

    Raises:
        OptimizerError: the library failed.
    """
    request = {"name": name, "sizes": list(sizes), "trials": trials, "seed": seed, "stream": stream}
    # Not a pipe: it would be read at the end only, and hold up a library that has much to say.
    with tempfile.TemporaryFile("w+") as errors, _process(errors) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            print(json.dumps(request), file=process.stdin, flush=True)
            for proposal in process.stdout:
                found = reward(tuple(json.loads(proposal)))
                print(json.dumps(found), file=process.stdin, flush=True)
        except BrokenPipeError:
            process.wait()
        if process.wait():
            errors.seek(0)
            last = errors.read().strip().splitlines()[-1:] or [f"its process ended with {process.returncode}"]
            raise OptimizerError(f"optimizer {name} failed: {last[0]}")


def _serve() -> None:
    """The process's side."""
    request = json.loads(sys.stdin.readline())
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever the library prints is no proposal

    def objective(position: dict[str, Any]) -> float:
        print(json.dumps([int(place) for place in position.values()]), file=answers, flush=True)
        line = sys.stdin.readline()
        if not line:
            sys.exit(0)  # nobody asks any more
        return json.loads(line)

    optimizer = _build(request["name"], request["sizes"], request["seed"], request["stream"])
    optimizer.search(objective, n_iter=request["trials"], verbosity=False, memory=False)


if __name__ == "__main__":
    _serve()
