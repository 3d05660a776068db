"""Who works on the shards: this process, the workers of a deployment, a Dask cluster."""

from __future__ import annotations

from pkgutil import resolve_name

from flows.dispatch.base import Dispatch
from pnp_core.stages.config import DispatchConfig

__all__ = ["open_dispatch"]

_MODES = {
    "inline": "flows.dispatch.inline:Inline",
    "deployment": "flows.dispatch.deployment:Deployment",
    "dask": "flows.dispatch.dask:DaskWorkers",
}
"""Where each is: workers are Prefect's, which is imported for nobody else."""


def open_dispatch(config: DispatchConfig) -> Dispatch:
    """The way of working that a configuration asks for, to be used by `with`.

    Raises:
        UsageError: its packages are not installed.
    """
    return resolve_name(_MODES[config.mode])(config)
