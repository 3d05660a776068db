"""The command line `pnp-ovss`. Heavy imports wait until a command runs, so that --help is quick."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from flows.cli import corpus, inspection, labelling, models, operations, results, tables, tuning, verifying

app = typer.Typer(
    name="pnp-ovss",
    help="Open-vocabulary segmentation masks for piles of images, with no training (PnP-OVSS).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(labelling.demo)
app.command("eval")(labelling.evaluate)
app.command()(labelling.label)
app.command()(corpus.label_corpus)
app.command()(tuning.tune)
app.command()(results.view)
app.command()(results.export)
app.command()(verifying.verify)
app.command()(tables.ablate)
app.command()(tables.tables)
app.command()(inspection.datasets)
app.command()(inspection.check)
app.command()(inspection.candidates)
app.command()(models.backbones)
app.command()(models.doctor)
app.command()(models.convert_weights)
app.command()(operations.up)
app.command()(operations.down)
app.command()(operations.deploy)
app.command()(operations.run)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pnp-ovss {version('pnp-ovss')}")
        raise typer.Exit


@app.callback()
def _top(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the `pnp-ovss` command."""
    app(prog_name="pnp-ovss")
