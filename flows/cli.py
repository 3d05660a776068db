"""The command line `pnp-ovss`. Heavy imports wait until a command runs, so that --help is quick."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from pnp_core.config import PRESETS, TINY, EvalConfig, LabelConfig, PipelineConfig, merge
from pnp_core.errors import PnpError, UsageError

SomeConfig = TypeVar("SomeConfig", bound=PipelineConfig)

app = typer.Typer(
    name="pnp-ovss",
    help="Open-vocabulary segmentation masks for piles of images, with no training (PnP-OVSS).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help=f"Start from: {', '.join(PRESETS)}. Default: tiny, or authors when --checkpoint is given.",
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="YAML with parts of the configuration; laid over the preset.")
]
BackboneOption = Annotated[str | None, typer.Option(help="Vision-language model: blip.")]
CheckpointOption = Annotated[str | None, typer.Option(help="Weights: tiny (bundled), a local folder, or a hub id.")]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
PngOption = Annotated[bool | None, typer.Option("--png/--no-png", help="Also write every mask as a PNG file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.")]


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read configuration '{path}': {getattr(error, 'strerror', error)}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"configuration '{path}' is not valid YAML: {' '.join(str(error).split())}") from error
    if values is not None and not isinstance(values, dict):
        raise UsageError(f"configuration '{path}' must be a mapping like 'masks: {{threshold: 0.2}}'")
    return values or {}


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _values(config: Path | None, checkpoint: str | None, preset: str | None, **options: Any) -> dict[str, Any]:
    """The YAML file, and the options over it; the configuration lays both over the preset."""
    values = _read_yaml(config) if config else {}
    default = TINY if checkpoint in (None, TINY) else "authors"
    values["preset"] = preset or values.get("preset", default)
    parts = {
        "salience": {"backbone": _given(name=options.pop("backbone"), checkpoint=checkpoint)},
        "runtime": _given(device=options.pop("device"), batch_size=options.pop("batch_size", None)),
    }
    return merge(values, {**parts, **_given(**options)})


def _build(model: type[SomeConfig], values: dict[str, Any]) -> SomeConfig:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"configuration: {place + ': ' if place else ''}{message}") from error


def _quiet_prefect(debug: bool) -> None:
    """Settings Prefect reads at import; what the user has set stays."""
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if debug else "CRITICAL")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def _fail(error: PnpError, debug: bool) -> None:
    from flows.console import errors

    if debug:
        errors.print_exception()
    errors.print(f"[bold red]error[/]: {_escape(str(error))}", soft_wrap=True)
    raise typer.Exit(error.exit_code)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _run(prepare: Callable[[], tuple[Callable[[Any], Any], PipelineConfig]], as_json: bool, debug: bool) -> None:
    """Check everything, run a flow under progress bars, and print what came out."""
    _quiet_prefect(debug)
    try:
        flow, config = prepare()
        from rich.console import Console

        from flows.console import ProgressBars, errors, show_summary
        from tasks.runtime import observed_by

        with ProgressBars() as bars, observed_by(bars):
            summary = flow(config)
        show_summary(summary, errors if as_json else Console())
        if as_json:
            print(json.dumps(summary.as_json(), ensure_ascii=False), flush=True)
    except PnpError as error:
        _fail(error, debug)
    except Exception as error:  # whatever it is, a user gets one line; --debug shows the rest
        message = " ".join(str(error).split())
        _fail(PnpError(f"{type(error).__name__}: {message[:500]} (--debug shows where)"), debug)


def _prepare_eval(values: dict[str, Any]) -> tuple[Callable[[Any], Any], PipelineConfig]:
    from pnp_core.plan import check_eval

    config = _build(EvalConfig, values)
    check_eval(config)
    from flows.evaluation import evaluate_dataset

    return evaluate_dataset, config


def _prepare_label(values: dict[str, Any]) -> tuple[Callable[[Any], Any], PipelineConfig]:
    from flows.console import errors
    from pnp_core.plan import check_label

    config = _build(LabelConfig, values)
    for warning in check_label(config):
        errors.print(f"[yellow]warning[/]: {_escape(warning)}", soft_wrap=True)
    from flows.labelling import label_pictures

    return label_pictures, config


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="Run folder: a path or any fsspec URL.")] = "runs/demo",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Label and score 200 synthetic test scenes with the bundled model: the whole method, offline.

    The run folder gets masks, scores and a contact sheet. Run it again and it resumes.
    """
    _run(lambda: _prepare_eval({"out": out}), as_json, debug)


@app.command("eval")
def evaluate(
    dataset: Annotated[str, typer.Argument(help="Dataset card, such as scenes.")],
    out: Annotated[str, typer.Option(help="Run folder: a path or any fsspec URL.")],
    split: Annotated[str | None, typer.Option(help="Split of the dataset; test when not given.")] = None,
    limit: Annotated[int | None, typer.Option(help="Pictures from the start of the split; 200 when not given.")] = None,
    shards: Annotated[int | None, typer.Option(help="Number of shards; 8 when not given.")] = None,
    preset_name: PresetOption = None,
    config: ConfigOption = None,
    backbone: BackboneOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    png: PngOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Label a dataset that has ground truth, and score it (mIoU, per-class IoU)."""
    own = {"dataset": dataset, "split": split, "limit": limit, "shards": shards, "out": out, "png": png}
    model = {"checkpoint": checkpoint, "backbone": backbone, "device": device}
    _run(lambda: _prepare_eval(_values(config, preset=preset_name, **model, **own)), as_json, debug)


@app.command()
def label(
    source: Annotated[str, typer.Argument(help="Folder of pictures (recursive), a picture, or tars ('x/*.tar').")],
    classes: Annotated[str, typer.Option(help='Class names, separated by commas: "cat,dog,traffic light".')],
    out: Annotated[str, typer.Option(help="Run folder: a path or any fsspec URL.")],
    preset_name: PresetOption = None,
    config: ConfigOption = None,
    backbone: BackboneOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per forward pass.")] = None,
    png: PngOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make masks for your own pictures. Mask value 0 is background, i the i-th class."""
    own = {"source": source, "classes": [name.strip() for name in classes.split(",")], "out": out, "png": png}
    model = {"checkpoint": checkpoint, "backbone": backbone, "device": device, "batch_size": batch_size}
    _run(lambda: _prepare_label(_values(config, preset=preset_name, **model, **own)), as_json, debug)


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


if __name__ == "__main__":
    sys.exit(main())
