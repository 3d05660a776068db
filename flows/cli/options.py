"""Options that several commands share, and what a command line makes of a configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Annotated, Any, Generic, TypeVar

import typer

from flows.cli.fields import Parameter, option
from flows.parameters import nested, parse_parameters
from pnp_core.config import DatasetConfig, laid_over, refuse_other_weights, with_method
from pnp_core.configuring import build
from pnp_core.frozen import Config, merge
from pnp_core.storage.settings import read_settings

SomeConfig = TypeVar("SomeConfig", bound=Config)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="End with exit code 1 when a picture was quarantined.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what it is and will take, from a few pictures; write nothing to --out.")
]
ParamOption = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="KEY=VALUE",
        rich_help_panel="Configuration",
        help="Any value of the configuration (pnp-ovss config schema), laid over all else: -p masks.threshold=0.2 "
        "-p 'masks.crf={name: torch}'. Can be given several times.",
    ),
]

BACKBONE = "method.backbone"
CANDIDATES = "salience.candidates"

_shared = partial(option, panel="Configuration")
SOURCE = _shared(f"{CANDIDATES}.source", "--candidates")
METHOD = _shared("method.name", "--method")
ENSEMBLE = (
    _shared("method.runs", "--run", repeated=True, metavar="FOLDER", implies=(METHOD, "ensemble")),
    _shared("method.weights"),
)
"""What commands take that make masks of any method's maps."""
PIPELINE = (
    SOURCE,
    _shared(f"{CANDIDATES}.file", "--candidates-file", implies=(SOURCE, "file")),
    _shared(f"{CANDIDATES}.min_score"),
    _shared(f"{CANDIDATES}.top_k"),
    _shared("preset"),
    _shared("config_file", "--config"),
    METHOD,
    _shared(f"{BACKBONE}.name", "--backbone"),
    _shared(f"{BACKBONE}.checkpoint"),
    _shared(f"{BACKBONE}.image_size"),
    _shared("method.layer"),
    _shared("method.head"),
    _shared("runtime.device"),
    _shared("runtime.batch_size"),
)
"""What every command takes that runs the model."""
OWN_IMAGES = (
    option("follow_links"),
    option("exclude", repeated=True, metavar="PATTERN"),
    option("fetch_seconds"),
)
MASKS = (option("png"), option("masks.confidence"))
TRACK = option("track", metavar="STORE")


@dataclass(frozen=True)
class Given(Generic[SomeConfig]):
    """What the options of a command line say of a configuration, at its places."""

    model: type[SomeConfig]
    values: dict[str, Any]

    def laid_over(self, parameters: Sequence[str] | None) -> dict[str, Any]:
        """The options, unchecked, and `-p` over them.

        Args:
            parameters: of `-p`, as typed.

        Raises:
            UsageError: one is not of its form.
        """
        return laid_over(self.values, parse_parameters(parameters or ()))

    def config(self, parameters: Sequence[str] | None = None, **usual: Any) -> SomeConfig:
        """The YAML file, the options over it, `-p` over all; the model lays this over the preset.

        Args:
            parameters: of `-p`, as typed.
            usual: what holds where none of them says anything.

        Raises:
            UsageError: it is not valid, or the file cannot be read or was made for other weights.
        """
        layers = [with_method(self.values), with_method(parse_parameters(parameters or ()))]
        file = merge(*layers).get("config_file")
        kept = read_settings(file) if isinstance(file, str) else {}
        values = laid_over(usual, kept, *layers)
        if isinstance(file, str):
            refuse_other_weights(file, with_method(kept), laid_over(*layers))
            values["config_file"] = None
        return _at_its_root(build(self.model, values))


def _at_its_root(config: SomeConfig) -> SomeConfig:
    """With the folder of its dataset as told once, where the command line says none; says so."""
    if not isinstance(config, DatasetConfig):
        return config
    from pnp_core.runs.located import located

    found = located(config)
    if found.data != config.data:
        tell_root(config.dataset, found.data)
    return found


def tell_root(dataset: str, data: str | None) -> None:
    """Say which folder is taken for a dataset."""
    from flows.cli.console import errors, shown

    errors.print(f"{shown(dataset)}: data from {shown(str(data))}, as `pnp-ovss config list` says", soft_wrap=True)


Command = Callable[..., None]


def options_of(model: type[Config], *parameters: Parameter) -> Callable[[Command], Command]:
    """Give a command parameters that stand for fields of a model; its first parameter, `given`, receives them."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def wrapper(**values: Any) -> None:
            said = {parameter: values.pop(parameter.name) for parameter in parameters}
            command(Given(model, _at_their_places(model, said)), **values)

        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "given"]
        keywords = (p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own)
        shown = [*(parameter.of(model) for parameter in parameters), *keywords]
        # Typer reads signature and annotations.
        wrapper.__dict__ |= {"__signature__": inspect.Signature(shown), "takes": (model, parameters)}
        wrapper.__annotations__ = {p.name: p.annotation for p in shown}
        del wrapper.__dict__["__wrapped__"]
        return wrapper

    return decorate


def _at_their_places(model: type[Config], said: dict[Parameter, Any]) -> dict[str, Any]:
    """Values where the configuration has them; what one implies holds where nothing else is said."""
    values: dict[str, Any] = {}
    for parameter, value in said.items():
        values = merge(values, parameter.values(model, value))
    for parameter, value in said.items():
        if parameter.implies and value is not None:
            source, implied = parameter.implies
            values = merge(nested(source.path, implied), values)
    return values
