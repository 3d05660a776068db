"""Commands about vision-language models: backbones, doctor, convert-weights."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import DebugOption, JsonOption, build, given
from flows.cli.running import one_line_errors
from pnp_core.visible import visible_json


def backbones(as_json: JsonOption = False) -> None:
    """List the vision-language models, their layers and heads, and where their weights are."""
    from flows.cli.console import list_cards, show_backbones
    from pnp_core.backbones.cards import backbone_card, backbone_names

    list_cards([backbone_card(name) for name in backbone_names()], show_backbones, as_json)


def doctor(
    backbone: Annotated[str, typer.Option(help="One of `pnp-ovss backbones`.")] = "blip",
    checkpoint: Annotated[
        str | None, typer.Option(help="Weights: tiny (bundled), a local folder, or a hub id; the card's first.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the square; the card's.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the image encoder: float32, bfloat16, float16.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")] = "auto",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say whether a model can run here: weights, offline or not, memory and time per picture. Exit code 1 when not."""
    from rich.console import Console

    from flows.cli.console import show_diagnosis
    from pnp_core.config import BackboneConfig
    from pnp_core.presets import TINY, for_backbone, preset

    with one_line_errors(debug):
        from pnp_core.backbones.doctor import diagnose

        start = preset(TINY if checkpoint == TINY else "authors")
        values = for_backbone(start, backbone)["salience"]["backbone"]
        own = given(checkpoint=checkpoint, image_size=image_size, dtype=dtype)
        found = diagnose(build(BackboneConfig, {"name": backbone, **values, **own}), device)
    show_diagnosis(found, Console(stderr=as_json))
    if as_json:
        print(visible_json(found.as_json()))
    raise typer.Exit(0 if found.problem is None else 1)


def convert_weights(
    file: Annotated[Path, typer.Argument(help="The .pth file of the model's authors.")],
    backbone: Annotated[str, typer.Option(help="Whose file it is: blip, albef or mplug.")],
    out: Annotated[Path, typer.Option(help="Folder to make; give it as --checkpoint afterwards.")],
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
        from pnp_core.backbones.convert import convert_weights

        done = convert_weights(file, backbone, tokenizer, out)
    show_conversion(done, Console(stderr=as_json))
    if as_json:
        print(visible_json({**asdict(done), "folder": str(done.folder)}))
