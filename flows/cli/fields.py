"""Parameters of commands that stand for fields of the configuration: type, help and default are the models' own."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from rich.markup import escape

from flows.parameters import nested
from pnp_core.config import PipelineConfig
from pnp_core.frozen import value_at
from pnp_core.methods import METHODS, method_config
from pnp_core.methods.base import MethodConfig
from pnp_core.methods.pnp.config import PnpConfig
from pnp_core.methods.pnp.presets import PRESETS

Model = type[BaseModel]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a command; where it stands for a field of the configuration is all that is said of it here.

    Attributes:
        path: of the field, such as `masks.threshold`.
        flag: such as `--threshold`; from the last name of the path when empty.
        positional: an argument, always to be given.
        required: to be given though the field has a default.
        repeated: a list is given by giving the option several times, as it is for arguments; else it is one text with
            commas.
        metavar: what stands for the value in the help.
        shown: the default that the help shows, where the command has one of its own.
        panel: of the help, where it is not the first one.
        implies: another parameter and the value that follows for it where it is not given itself.
    """

    path: str
    flag: str = ""
    positional: bool = False
    required: bool = False
    repeated: bool = False
    metavar: str | None = None
    shown: str = ""
    panel: str | None = None
    implies: tuple[Parameter, str] | None = None

    @property
    def name(self) -> str:
        """As the command's function gets it."""
        return self.path.rpartition(".")[2] if self.positional else self.path.replace(".", "__")

    def of(self, model: Model) -> inspect.Parameter:
        """What Typer reads."""
        kind = _kind(field_at(model, self.path).annotation)
        required = self._is_required(model)
        about: Any = {"help": self.help(model), "show_default": False, "metavar": self.metavar}
        about["rich_help_panel"] = self.panel
        info = typer.Argument(**about) if self.positional else typer.Option(self._flag(kind), **about)
        annotation: Any = (list[str] if self.repeated or self.positional else str) if kind is tuple else kind
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if required else None,
            annotation=Annotated[annotation if required else annotation | None, info],
        )

    def help(self, model: Model) -> str:
        """The field's description up to the first empty line, and its default; with Rich's markup."""
        field = field_at(model, self.path)
        words = [" ".join((field.description or "").split("\n\n")[0].split())]
        if _kind(field.annotation) is tuple and not self.positional:
            more = ", or `all`" if _choices(field.annotation) else ""
            words.append("Can be given several times." if self.repeated else f"Separated by commas{more}.")
        if self.implies:
            words.append(f"Implies {self.implies[0].flag} {self.implies[1]}.")
        text = re.sub(r"`([^`]+)`", r"[bold]\1[/bold]", escape(" ".join(words)))
        default = self.shown or _shown_default(model, self.path, self._default(model))
        if self._is_required(model) or not default:
            return text
        return f"{text} [dim]{escape(f'[default: {default}]')}[/dim]"

    def values(self, model: Model, given: Any) -> dict[str, Any]:
        """What was given, at its place in the configuration."""
        if given is None:
            return {}
        annotation = field_at(model, self.path).annotation
        if _kind(annotation) is tuple and isinstance(given, str):
            given = _choices(annotation) if given == "all" and _choices(annotation) else names(given)
        return nested(self.path, given)

    def _is_required(self, model: Model) -> bool:
        usual = self.shown or self._default(model) is not PydanticUndefined
        return self.positional or self.required or not usual

    def _flag(self, kind: type) -> str:
        if self.flag:
            return self.flag
        name = self.path.rpartition(".")[2].replace("_", "-")
        return f"--{name}/--no-{name}" if kind is bool else f"--{name}"

    def _default(self, model: Model) -> Any:
        """Of the field, or of what a flow lays over the preset."""
        own = value_at(model.own_defaults({}, PnpConfig), self.path) if issubclass(model, PipelineConfig) else None
        return default_at(model, self.path) if own is None else own


def argument(path: str) -> Parameter:
    """A field that is always given, by its place in the command line."""
    return Parameter(path, positional=True)


def option(path: str, flag: str = "", **more: Any) -> Parameter:
    """A field that is given by a flag; see `Parameter`."""
    return Parameter(path, flag, **more)


def field_at(model: Model, path: str) -> FieldInfo:
    """The field at a dotted path, through parts that are optional or of several forms.

    Raises:
        KeyError: there is none.

    >>> field_at(PipelineConfig, "masks.crf.iterations").default
    10
    """
    models, (*parts, name) = [model], path.split(".")
    for part in parts:
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        models = [inner for field in fields for inner in (*_models(field.annotation), *_usual(field))]
    for found in models:
        if name in found.model_fields:
            return found.model_fields[name]
    raise KeyError(path)


def default_at(model: Model, path: str) -> Any:
    """The default of the field at a dotted path, as the parts around it have it; undefined where one must be given."""
    name, *rest = path.split(".")
    value = model.model_fields[name].get_default(call_default_factory=True)
    for part in rest:
        value = getattr(value, part, None)
    return value


def names(text: str | None) -> list[str] | None:
    """Names separated by commas; None stays None."""
    return None if text is None else [name.strip() for name in text.split(",")]


def _models(annotation: Any) -> Iterator[Model]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for form in get_args(annotation):
        yield from _models(form)


def _usual(field: FieldInfo) -> list[Model]:
    """What a part usually is, where its type tells less: of all methods' configurations those of this package."""
    if isinstance(field.default, MethodConfig):
        return [method_config(name) for name in METHODS.builtin]
    return [type(field.default)] if isinstance(field.default, BaseModel) else []


def _forms(annotation: Any) -> list[Any]:
    """The types that a value may have, without what constrains them."""
    if get_origin(annotation) is Annotated:
        return _forms(get_args(annotation)[0])
    if get_origin(annotation) in (None, tuple, Literal):
        return [annotation]
    return [form for part in get_args(annotation) for form in _forms(part)]


def _kind(annotation: Any) -> type:
    """What is typed: bool, int, float, str, or a tuple of names. Of several forms the first counts."""
    form = next(form for form in _forms(annotation) if form is not NoneType)
    return get_origin(form) if get_origin(form) is tuple else str if get_origin(form) is Literal else form


def _choices(annotation: Any) -> list[str]:
    """The names that a tuple may hold, where they are a closed list."""
    element = get_args(annotation)[0]
    return list(get_args(element)) if get_origin(element) is Literal else []


def _shown_default(model: Model, path: str, default: Any) -> str:
    """For people: one value, or those of the presets where they differ."""
    by_preset = {name: value_at(values, path) for name, values in PRESETS.items()}
    if not issubclass(model, PipelineConfig) or all(value is None for value in by_preset.values()):
        return _shown(default)
    if value_at(model.own_defaults({}, PnpConfig), path) is not None:
        return _shown(default)
    groups: dict[str, list[str]] = {}
    for name, value in by_preset.items():
        groups.setdefault(_shown(default if value is None else value), []).append(name)
    if len(groups) == 1:
        return next(iter(groups))
    named = {value: f" ({', '.join(presets)})" for value, presets in groups.items() if presets != [value]}
    return ", ".join(f"{value}{named.get(value, '')}" for value in groups)


def _shown(value: Any) -> str:
    if value is PydanticUndefined or value is None or value is False or value == ():
        return ""
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
