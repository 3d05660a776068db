"""Commands about configuration: config schema."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flows.cli.options import DebugOption
from flows.cli.running import one_line_errors
from pnp_core.config import AblateConfig, CorpusConfig, EvalConfig, LabelConfig, TablesConfig
from pnp_core.errors import UnknownNameError
from pnp_core.frozen import Config
from pnp_core.tuning.config import TuneConfig

FLOWS: dict[str, type[Config]] = {
    "eval": EvalConfig,
    "label": LabelConfig,
    "corpus": CorpusConfig,
    "tune": TuneConfig,
    "ablate": AblateConfig,
    "tables": TablesConfig,
}

config = typer.Typer(help="The configuration of the flows.", no_args_is_help=True)


@config.callback()
def _config() -> None:
    """Make `schema` a command of a group, though it is the only one."""


@config.command()
def schema(
    flow: Annotated[str, typer.Argument(help=f"Whose configuration: {', '.join(FLOWS)}.")] = "eval",
    debug: DebugOption = False,
) -> None:
    """Print the JSON Schema of a flow's configuration: every key, what it means, its default and bounds.

    The keys are those of -p and of the YAML for --config.
    """
    with one_line_errors(debug):
        if flow not in FLOWS:
            raise UnknownNameError("flow", flow, FLOWS)
        found = FLOWS[flow].model_json_schema()
    print(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **found}, indent=2))
