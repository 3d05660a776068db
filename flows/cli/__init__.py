"""The command line `pnp-ovss`. Heavy imports wait until a command runs, so that --help is quick."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated, Any

import typer
from click import ClickException, Context
from typer.core import TyperGroup

from flows.cli import (
    comparing,
    configuration,
    corpus,
    inspection,
    labelling,
    loudness,
    models,
    operations,
    results,
    tables,
    tuning,
    verifying,
)
from pnp_core.text.visible import visible


class _Commands(TyperGroup):
    """The commands; what is said of a wrong command line shows what was typed without letting it act."""

    def make_context(self, *arguments: Any, **more: Any) -> Context:
        with _visible_complaints():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Context) -> Any:
        with _visible_complaints():
            return super().invoke(ctx)


@contextmanager
def _visible_complaints() -> Iterator[None]:
    try:
        yield
    except ClickException as error:
        error.message = visible(error.message)
        raise


app = typer.Typer(
    name="pnp-ovss",
    cls=_Commands,
    help="Open-vocabulary segmentation masks for piles of images, with no training (PnP-OVSS).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(labelling.demo)
app.command("eval")(labelling.evaluate)
app.command()(labelling.label)
app.command()(corpus.label_corpus)
app.command()(tuning.tune)
app.command()(results.view)
app.command()(comparing.compare)
app.command()(results.export)
app.command()(verifying.verify)
app.command()(tables.ablate)
app.command()(tables.tables)
app.command()(inspection.datasets)
app.command()(inspection.check)
app.command()(inspection.candidates)
app.add_typer(configuration.config, name="config")
app.command()(models.methods)
app.command()(models.backbones)
app.command()(models.models)
app.command()(models.doctor)
app.command()(models.convert_weights)
app.command()(operations.up)
app.command()(operations.down)
app.command()(operations.deploy)
app.command()(operations.run)
for _registered in (*app.registered_commands, *configuration.config.registered_commands):
    assert _registered.callback
    _registered.callback = loudness.loud_or_quiet(_registered.callback)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pnp-ovss {version('pnp-ovss')}")
        raise typer.Exit


@app.callback()
def _top(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: loudness.VerboseOption = False,
    quiet: loudness.QuietOption = False,
) -> None:
    loudness.begin(verbose, quiet)


def main() -> None:
    """Entry point of the `pnp-ovss` command."""
    app(prog_name="pnp-ovss")
