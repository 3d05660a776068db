"""Methods by name. Adding one is a room here and one line below, or a package of its own (`pnp_core.registry`)."""

from __future__ import annotations

from functools import lru_cache, reduce
from operator import or_
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator

from pnp_core.methods.base import PNP, LoadedMethod, Method, MethodConfig, Pinned
from pnp_core.registry import Registry

METHODS: Registry[type[MethodConfig]] = Registry(
    "method", "pnp_ovss.methods", {PNP: "pnp_core.methods.pnp.config:PnpConfig"}
)
"""Their configurations, which say where they are."""


def _told_apart_by_name(kinds: list[Any]) -> Any:
    return Annotated[reduce(or_, kinds), Discriminator("name")] if len(kinds) > 1 else kinds[0]


if TYPE_CHECKING:
    AnyMethod = MethodConfig
else:
    AnyMethod = _told_apart_by_name([METHODS.get(name) for name in METHODS])
    """The configuration of whatever method."""


def method_of(config: MethodConfig) -> Method[Any, Any]:
    """What a configuration is of."""
    return resolve_name(config.method)


@lru_cache(maxsize=4)
def load_method(config: MethodConfig, pinned: Pinned, captions: tuple[str, ...], device: str) -> LoadedMethod:
    """A method with its model loaded; a process keeps the last ones for the next shard (several GPUs have one each).

    Raises:
        UsageError: the weights do not fit.
    """
    return method_of(config).load(config, pinned, captions, device)
