"""Whether a method can run here, and what it costs: weights, memory, time of one picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np

from pnp_core.checks.cost import Cost, peak_memory, say_device
from pnp_core.devices import resolve_device
from pnp_core.errors import UnusableImage, UsageError
from pnp_core.methods import load_method, method_of
from pnp_core.methods.base import LoadedMethod, MethodConfig
from pnp_core.methods.pnp.backbones.checkpoint import is_offline

SIZE = (375, 500)
"""Height and width of the picture that is measured with, in pixels."""


@dataclass(frozen=True)
class MethodDiagnosis:
    """What `pnp-ovss doctor --method` says.

    Attributes:
        weights: in words.
        problem: why it cannot run like this; None when it can.
        loading: seconds until the model is ready; None when it cannot run.
        measured: by one picture and one class. None when it cannot run, or looks at no picture of which it has nothing.
    """

    method: str
    weights: str
    device: str
    offline: bool
    problem: str | None
    loading: float | None
    measured: Cost | None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def diagnose_method(config: MethodConfig, device: str = "auto") -> MethodDiagnosis:
    """Load a method and measure it, or say why that cannot be.

    Raises:
        UsageError: no such device.
    """
    place = resolve_device(device)
    problem, loading, measured = None, None, None
    try:
        start = perf_counter()
        loaded = load_method(config, method_of(config).pin(config), _classes(config), device)
        loading = perf_counter() - start
        if isinstance(loaded, LoadedMethod):
            seconds = _seconds(loaded)
            measured = None if seconds is None else Cost(seconds, peak_memory(place))
    except UsageError as error:
        problem = str(error)
    return MethodDiagnosis(
        method=config.name,
        weights=config.describe().weights,
        device=say_device(place),
        offline=is_offline(),
        problem=problem,
        loading=loading,
        measured=measured,
    )


def _classes(config: MethodConfig) -> tuple[str, ...]:
    """A class, and those that the settings name, which would be no classes otherwise."""
    of_classes: tuple[tuple[str, Any], ...] = (*getattr(config, "queries", ()), *getattr(config, "names", ()))
    stuff: tuple[str, ...] = getattr(config, "stuff", ())
    return tuple(dict.fromkeys(("car", *(name for name, _ in of_classes), *stuff)))


def _seconds(loaded: LoadedMethod) -> float | None:
    """The shorter of two times for one picture; None of a method that knows pictures by their keys alone."""
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    found = []
    for _ in range(2):  # the first one warms up
        start = perf_counter()
        try:
            loaded.look(loaded.encode([loaded.prepare_keyed("", picture)]), {0: (1,)})
        except UnusableImage:
            return None
        found.append(perf_counter() - start)
    return min(found)
