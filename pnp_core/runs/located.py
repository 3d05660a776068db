"""A configuration as it holds on the machine that works on it."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from pnp_core.config import DatasetConfig
from pnp_core.inputs.roots import data_of

SomeConfig = TypeVar("SomeConfig", bound=DatasetConfig)


def located(config: SomeConfig) -> SomeConfig:
    """The configuration with the root of its dataset, where none is given, and a run folder `~/...` in one's own home.

    The flows ask here too: a worker knows best where its machine has the data.

    Raises:
        UsageError: what tells the roots cannot be read.
        DatasetError: the root is gone.
    """
    own_images = bool(getattr(config, "classes", ()))  # those lie anywhere
    data = config.data if own_images else data_of(config.dataset, config.data)
    update: dict[str, Any] = {} if data == config.data else {"data": data}
    if (out := getattr(config, "out", "")).startswith("~"):
        update["out"] = os.path.expanduser(out)  # noqa: PTH111 - pathlib fails on names such as `~cat`
    return config.model_copy(update=update) if update else config
