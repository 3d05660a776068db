"""Who works on the shards: this process, the workers of a deployment, a Dask cluster."""

from __future__ import annotations

from flows.dispatch.base import Dispatch
from flows.dispatch.dask import DaskWorkers
from flows.dispatch.deployment import Deployment
from flows.dispatch.inline import Inline
from pnp_core.stages.config import DispatchConfig

__all__ = ["open_dispatch"]

_MODES: dict[str, type[Inline]] = {"inline": Inline, "deployment": Deployment, "dask": DaskWorkers}


def open_dispatch(config: DispatchConfig) -> Dispatch:
    """The way of working that a configuration asks for, to be used by `with`.

    Raises:
        UsageError: its packages are not installed.
    """
    return _MODES[config.mode](config)
