"""Commands about methods and their models: methods, backbones, models, doctor, convert-weights."""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.fields import names as split_names
from flows.cli.fields import option
from flows.cli.options import BACKBONE, METHOD, DebugOption, Given, JsonOption, ParamOption, options_of
from flows.cli.running import one_line_errors
from pnp_core.bundled import BUNDLED, PHOTO
from pnp_core.config import EvalConfig
from pnp_core.configuring import build
from pnp_core.errors import UnknownNameError, UsageError
from pnp_core.frozen import merge, value_at
from pnp_core.methods.base import PNP, MethodConfig
from pnp_core.stages.config import RuntimeConfig
from pnp_core.text.visible import visible, visible_json

if TYPE_CHECKING:
    from pnp_core.checks.backbone import Diagnosis
    from pnp_core.checks.method import MethodDiagnosis
    from pnp_core.methods.pnp.backbones.known_names import Unknown
    from pnp_core.storage.weights import Conversion


@dataclass(frozen=True)
class KnownMethod:
    """What `methods` lists: a name, what it is, and what is to be known of its settings."""

    name: str
    about: str
    settings: str


def backbones(as_json: JsonOption = False) -> None:
    """List the vision-language models, their layers and heads, and where their weights are."""
    from flows.cli.console import list_cards
    from flows.cli.model_console import show_backbones
    from pnp_core.methods.pnp.backbones.cards import backbone_card, backbone_names

    list_cards([backbone_card(name) for name in backbone_names()], show_backbones, as_json)


def models(
    name: Annotated[str, typer.Argument(help="Bundled model: photo or tiny.")] = PHOTO,
    knows: Annotated[
        list[str] | None, typer.Option(help="Ask for class names, separated by commas; again for more.")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the class names that a bundled model knows, or ask for some. Exit code 1 when it does not know one."""
    with one_line_errors(debug):
        from pnp_core.methods.pnp.backbones.known_names import known_names, unknown_names

        if name not in BUNDLED:
            raise UnknownNameError("bundled model", name, BUNDLED)
        knows = [one for several in knows or () for one in split_names(several) or ()]
        unknown = {found.name: found for found in unknown_names(name, knows)}
        names = known_names(name)
    if as_json:
        asked = {one: {"known": one not in unknown, "nearest": _nearest(unknown, one)} for one in knows or ()}
        print(visible_json({"model": name, "asked": asked} if knows else {"model": name, "names": names}))
    elif knows:
        for one in knows:
            print(visible(f"unknown: {unknown[one]}" if one in unknown else f"known: {one}"))
    else:
        print("\n".join(names))
    raise typer.Exit(1 if unknown else 0)


def _nearest(unknown: dict[str, Unknown], name: str) -> list[str]:
    return list(unknown[name].nearest) if name in unknown else []


def methods(as_json: JsonOption = False) -> None:
    """List the methods of segmentation. What each needs, costs and is good for is in docs/methods.md."""
    from flows.cli.console import list_cards
    from flows.cli.model_console import show_methods
    from pnp_core.methods import METHODS, method_config

    list_cards([_known_of(method_config(name)) for name in METHODS], show_methods, as_json)


def _known_of(kind: type[MethodConfig]) -> KnownMethod:
    about, _, more = (" ".join(part.split()) for part in (inspect.getdoc(kind) or "").partition("\n\n"))
    return KnownMethod(kind.own_name(), about, more)


@options_of(
    EvalConfig,
    METHOD,
    option(f"{BACKBONE}.name", "--backbone", shown=PHOTO),
    option(f"{BACKBONE}.checkpoint", shown="the backbone's own"),
    option(f"{BACKBONE}.image_size", shown="the backbone's own"),
    option(f"{BACKBONE}.dtype"),
    option("runtime.device"),
)
def doctor(
    given: Given[EvalConfig],
    param: ParamOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say whether a model can run here: weights, offline or not, memory and time per picture. Exit code 1 when not."""
    from rich.console import Console

    from flows.cli.console import errors
    from flows.cli.model_console import show_diagnosis, show_method_diagnosis

    console = errors if as_json else Console()
    with one_line_errors(debug):
        values = given.laid_over(param)
        device = build(RuntimeConfig, values.get("runtime", {})).device
        if (value_at(values, "method.name") or PNP) == PNP:
            found = _diagnosis(values, device)
            show_diagnosis(found, console)
        else:
            found = _diagnosis_of_method(values, device)
            show_method_diagnosis(found, console)
    if as_json:
        print(visible_json(found.as_json()))
    raise typer.Exit(0 if found.problem is None else 1)


def _diagnosis(values: dict[str, Any], device: str) -> Diagnosis:
    """Of the backbone that PnP-OVSS would take."""
    from pnp_core.checks.backbone import diagnose
    from pnp_core.methods.pnp.config import BackboneConfig
    from pnp_core.methods.pnp.presets import for_backbone, preset

    own = value_at(values, BACKBONE) or {}
    checkpoint = own.get("checkpoint")
    named = own.get("name") or BUNDLED.get(checkpoint or PHOTO, "blip")
    start = for_backbone(preset(checkpoint if checkpoint in BUNDLED else "authors"), named)
    return diagnose(build(BackboneConfig, {**value_at(start, BACKBONE), **own, "name": named}), device)


def _diagnosis_of_method(values: dict[str, Any], device: str) -> MethodDiagnosis:
    """Of another method, as `label` would run it."""
    from pnp_core.checks.method import diagnose_method
    from pnp_core.methods import method_config

    kind = method_config(values["method"]["name"])
    usual = kind.defaults({"classes": [], **values}, PHOTO).get("method", {})
    return diagnose_method(build(kind, merge(usual, values["method"])), device)


def convert_weights(
    file: Annotated[Path, typer.Argument(help="The .pth file of the model's authors.")],
    out: Annotated[Path, typer.Option(help="Folder to make; what is said at the end names it afterwards.")],
    backbone: Annotated[str | None, typer.Option(help="Whose file it is: blip, albef or mplug.")] = None,
    method: Annotated[str | None, typer.Option(help="Or of which other method: simzss.")] = None,
    tokenizer: Annotated[
        str, typer.Option(help="bert-base-uncased's vocabulary: a vocab.txt, its folder, or a hub id.")
    ] = "bert-base-uncased",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a checkpoint folder of the authors' own weights. Code in the file is never run."""
    from rich.console import Console

    from flows.cli.console import errors
    from flows.cli.model_console import show_conversion

    with one_line_errors(debug, kept="nothing was made"):
        done = _converted(file, out, backbone, method, tokenizer)
    show_conversion(done, errors if as_json else Console())
    if as_json:
        print(visible_json({**asdict(done), "folder": str(done.folder)}))


def _converted(file: Path, out: Path, backbone: str | None, method: str | None, tokenizer: str) -> Conversion:
    """The folder made of a file, by whoever it is for."""
    if (backbone is None) == (method is None):
        raise UsageError("say whose file it is: --backbone blip, albef or mplug, or --method simzss, and one alone")
    if backbone is None:
        from pnp_core.methods import method_config, method_of

        return method_of(method_config(str(method))).convert(file, out)
    from pnp_core.methods.pnp.backbones.convert import convert_weights

    return convert_weights(file, backbone, tokenizer, out)
