"""Methods by name. Adding one is a room here and one line below, or a package of its own (`pnp_core.registry`)."""

from __future__ import annotations

from functools import lru_cache
from pkgutil import resolve_name
from typing import Annotated, Any

from pydantic import BeforeValidator, GetJsonSchemaHandler, SerializeAsAny
from pydantic.json_schema import JsonSchemaValue

from pnp_core.errors import PluginError
from pnp_core.methods.base import PNP, Loaded, Method, MethodConfig, Pinned
from pnp_core.registry import Registry

METHODS: Registry[type[MethodConfig]] = Registry(
    "method",
    "pnp_ovss.methods",
    {
        PNP: "pnp_core.methods.pnp.config:PnpConfig",
        "naclip": "pnp_core.methods.naclip.config:NaclipConfig",
        "car": "pnp_core.methods.car.config:CarConfig",
        "simzss": "pnp_core.methods.simzss.config:SimzssConfig",
        "classify": "pnp_core.methods.classify.config:ClassifyConfig",
        "ensemble": "pnp_core.methods.ensemble.config:EnsembleConfig",
    },
)
"""Their configurations, which say where they are."""


def method_config(name: str) -> type[MethodConfig]:
    """The configuration of a method.

    Raises:
        UnknownNameError: there is no such method.
        PluginError: another package's cannot be loaded, or calls itself otherwise.
    """
    kind = METHODS.get(name)
    if kind.own_name() != name:
        raise PluginError(f"method '{name}' calls itself '{kind.own_name()}' in {kind.__module__}")
    return kind


def _told_apart_by_name(value: Any) -> Any:
    if isinstance(value, MethodConfig):
        return value
    values = {"name": value} if isinstance(value, str) else value
    if not isinstance(values, dict):
        raise ValueError("a method is its name, or a mapping with its name and settings")
    return method_config(str(values.get("name", PNP))).model_validate(values)


class _OneOfAll:
    """The JSON schema of whatever method."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(method_config(name).__pydantic_core_schema__) for name in METHODS]}


# A union of them all would import every package's before one is asked for, and be circular for them.
AnyMethod = Annotated[SerializeAsAny[MethodConfig], BeforeValidator(_told_apart_by_name), _OneOfAll()]
"""The configuration of whatever method, told apart by `name`; `pnp-ovss` where nothing is said."""


def method_of(config: MethodConfig | type[MethodConfig]) -> Method[Any, Any]:
    """What a configuration, or its class, is of.

    Raises:
        PluginError: another package's cannot be loaded.
    """
    try:
        return resolve_name(config.place)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"method '{config.own_name()}' ({config.place}) cannot be loaded: {error}") from error


def load_method(config: MethodConfig, pinned: Pinned, captions: tuple[str, ...], device: str) -> Loaded:
    """A method with its model loaded; a process keeps the last ones for the next shard (several GPUs have one each).

    Raises:
        UsageError: the weights do not fit.
    """
    return _load(config.without_masks(), pinned, captions, device)


@lru_cache(maxsize=2)
def _load(config: MethodConfig, pinned: Pinned, captions: tuple[str, ...], device: str) -> Loaded:
    return method_of(config).load(config, pinned, captions, device)
