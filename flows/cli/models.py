"""Commands about vision-language models: backbones, models, doctor, convert-weights."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.fields import names as split_names
from flows.cli.fields import option
from flows.cli.options import BACKBONE, DebugOption, Given, JsonOption, options_of
from flows.cli.running import one_line_errors
from pnp_core.bundled import BUNDLED, PHOTO
from pnp_core.config import EvalConfig
from pnp_core.configuring import build
from pnp_core.errors import UnknownNameError, UsageError
from pnp_core.frozen import value_at
from pnp_core.stages.config import RuntimeConfig
from pnp_core.text.visible import visible, visible_json

if TYPE_CHECKING:
    from pnp_core.methods.pnp.backbones.known_names import Unknown
    from pnp_core.storage.weights import Conversion


def backbones(as_json: JsonOption = False) -> None:
    """List the vision-language models, their layers and heads, and where their weights are."""
    from flows.cli.console import list_cards, show_backbones
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


@options_of(
    EvalConfig,
    option(f"{BACKBONE}.name", "--backbone", shown=PHOTO),
    option(f"{BACKBONE}.checkpoint", shown="the backbone's own"),
    option(f"{BACKBONE}.image_size", shown="the backbone's own"),
    option(f"{BACKBONE}.dtype"),
    option("runtime.device"),
)
def doctor(given: Given[EvalConfig], as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Say whether a model can run here: weights, offline or not, memory and time per picture. Exit code 1 when not."""
    from rich.console import Console

    from flows.cli.console import show_diagnosis
    from pnp_core.methods.pnp.config import BackboneConfig
    from pnp_core.methods.pnp.presets import for_backbone, preset

    with one_line_errors(debug):
        from pnp_core.checks.backbone import diagnose

        own = value_at(given.values, BACKBONE) or {}
        checkpoint = own.get("checkpoint")
        named = own.get("name") or BUNDLED.get(checkpoint or PHOTO, "blip")
        start = for_backbone(preset(checkpoint if checkpoint in BUNDLED else "authors"), named)
        config = build(BackboneConfig, {**value_at(start, BACKBONE), **own, "name": named})
        found = diagnose(config, build(RuntimeConfig, given.values.get("runtime", {})).device)
    show_diagnosis(found, Console(stderr=as_json))
    if as_json:
        print(visible_json(found.as_json()))
    raise typer.Exit(0 if found.problem is None else 1)


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

    from flows.cli.console import show_conversion

    with one_line_errors(debug, kept="nothing was made"):
        done = _converted(file, out, backbone, method, tokenizer)
    show_conversion(done, Console(stderr=as_json))
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
