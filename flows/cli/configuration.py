"""Commands about configuration: config set, get, list, unset, schema."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from flows.cli.options import DebugOption, JsonOption
from flows.cli.running import one_line_errors, warn
from pnp_core.config import AblateConfig, CorpusConfig, EvalConfig, LabelConfig, TablesConfig
from pnp_core.errors import UnknownNameError, UsageError
from pnp_core.frozen import Config
from pnp_core.inputs.roots import KEY, ROOTS
from pnp_core.text.visible import visible, visible_json
from pnp_core.tuning.config import TuneConfig

FLOWS: dict[str, type[Config]] = {
    "eval": EvalConfig,
    "label": LabelConfig,
    "corpus": CorpusConfig,
    "tune": TuneConfig,
    "ablate": AblateConfig,
    "tables": TablesConfig,
}

config = typer.Typer(
    help="Where your datasets lie, told once (set, get, list, unset); what the flows' configuration may hold (schema).",
    no_args_is_help=True,
)
Key = Annotated[str, typer.Argument(metavar="data.CARD", help="Such as data.voc21; `pnp-ovss datasets` lists cards.")]


@config.command("set")
def set_value(
    key: Key,
    value: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Of the dataset as distributed: a path or any fsspec URL.")
    ],
    debug: DebugOption = False,
) -> None:
    """Write down where a dataset lies, so that no command needs --data for it.

    In the file that `config list` names. --data and a YAML of --config count more, the variable PNP_OVSS_DATA too.
    """
    from pnp_core.inputs.roots import known_roots, set_root, settings_file

    with one_line_errors(debug, kept="nothing was changed"):
        root = set_root(_card_in(key), value)
        print(f"{KEY}{root.name}  {visible(root.path)}  in {visible(str(settings_file()))}")
        if (counts := known_roots().get(root.name)) and counts.path != root.path:
            warn([f"{counts.origin} counts more, which says '{counts.path}'"])


@config.command()
def get(key: Key, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Print where a dataset lies, as commands without --data take it."""
    from pnp_core.inputs.roots import root_of

    with one_line_errors(debug):
        name = _card_in(key)
        root = root_of(name)
        if root is None:
            raise UsageError(f"{key} is not set: `pnp-ovss config set {key} FOLDER`")
    print(visible_json(asdict(root)) if as_json else visible(root.path))


@config.command("list")
def list_values(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List where datasets lie, and who says so."""
    from pnp_core.inputs.roots import known_roots, settings_file

    with one_line_errors(debug):
        file, roots = settings_file(), known_roots()
    for name in () if as_json else sorted(roots):
        print(f"{KEY}{name}  {visible(roots[name].path)}  ({visible(roots[name].origin)})")
    if as_json:
        print(visible_json({"file": str(file), "data": {name: asdict(root) for name, root in sorted(roots.items())}}))
    elif not roots:
        print(f"nothing is set, in {visible(str(file))} or {ROOTS}")


@config.command()
def unset(key: Key, debug: DebugOption = False) -> None:
    """Forget where a dataset lies."""
    from pnp_core.inputs.roots import unset_root

    with one_line_errors(debug, kept="nothing was changed"):
        unset_root(_name_in(key))


def _name_in(key: str) -> str:
    """Of `data.NAME`."""
    if not key.startswith(KEY) or key == KEY:
        raise UsageError(f"unknown key '{key}': keys are {KEY}CARD, such as {KEY}voc21")
    return key.removeprefix(KEY)


def _card_in(key: str) -> str:
    """The card of `data.CARD`, which is there."""
    from pnp_core.inputs.cards import available_cards

    name = _name_in(key)
    if name not in available_cards():
        raise UnknownNameError("key", key, [f"{KEY}{card}" for card in available_cards()])
    return name


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
