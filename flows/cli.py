"""The command line `pnp-ovss`. Heavy imports wait until a command runs, so that --help is quick."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import PurePath
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import ValidationError

from pnp_core.config import (
    PRESETS,
    TINY,
    Config,
    EvalConfig,
    LabelConfig,
    PipelineConfig,
    TuneConfig,
    merge,
    read_settings,
)
from pnp_core.errors import PnpError, UsageError

SomeConfig = TypeVar("SomeConfig", bound=Config)

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
    str | None,
    typer.Option("--config", help="YAML with parts of the configuration, such as best.yaml; laid over the preset."),
]
BackboneOption = Annotated[str | None, typer.Option(help="Vision-language model: blip.")]
CheckpointOption = Annotated[str | None, typer.Option(help="Weights: tiny (bundled), a local folder, or a hub id.")]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
PngOption = Annotated[bool | None, typer.Option("--png/--no-png", help="Also write every mask as a PNG file.")]
CandidatesOption = Annotated[
    str | None,
    typer.Option(
        "--candidates",
        help="Which classes go into a picture's caption: labels, vocabulary, file, itm, clip (docs/candidates.md).",
    ),
]
CandidatesFileOption = Annotated[
    str | None,
    typer.Option(help="JSON, JSON Lines, CSV or Parquet with classes per picture; implies --candidates file."),
]
MinScoreOption = Annotated[float | None, typer.Option(help="Candidates must score above this, 0..1.")]
TopKOption = Annotated[int | None, typer.Option(help="At most so many candidates per picture, the best ones.")]
BatchOption = Annotated[int | None, typer.Option(help="Pictures per forward pass.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="End with exit code 1 when a picture was quarantined.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.")]


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _refuse_other_checkpoint(config: str | None, values: dict[str, Any], checkpoint: str | None) -> None:
    """Layer, head and sizes of a file that names its checkpoint mean nothing for another one."""
    salience = values.get("salience")
    backbone = salience.get("backbone") if isinstance(salience, dict) else None
    chosen = backbone.get("checkpoint") if isinstance(backbone, dict) else None
    if None not in (chosen, checkpoint) and chosen != checkpoint:
        raise UsageError(f"'{config}' was made for checkpoint {chosen}; leave out --checkpoint {checkpoint}")


def _values(config: str | None, checkpoint: str | None, preset: str | None, **options: Any) -> dict[str, Any]:
    """The YAML file, and the options over it; the configuration lays both over the preset."""
    values = read_settings(config) if config else {}
    _refuse_other_checkpoint(config, values, checkpoint)
    default = TINY if checkpoint in (None, TINY) else "authors"
    values["preset"] = preset or values.get("preset", default)
    candidates = _given(
        source=options.pop("candidates", None),
        file=options.pop("candidates_file", None),
        min_score=options.pop("min_score", None),
        top_k=options.pop("top_k", None),
    )
    if "file" in candidates:
        candidates.setdefault("source", "file")
    parts = {
        "salience": {
            "backbone": _given(name=options.pop("backbone", None), checkpoint=checkpoint),
            "candidates": candidates,
            **_given(max_pixels=options.pop("max_pixels", None)),
        },
        "runtime": _given(device=options.pop("device", None), batch_size=options.pop("batch_size", None)),
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


def _fail(error: PnpError, debug: bool) -> NoReturn:
    from flows.console import errors

    if debug:
        errors.print_exception()
    errors.print(f"[bold red]error[/]: {_escape(str(error))}", soft_wrap=True)
    raise typer.Exit(error.exit_code)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@contextmanager
def _one_line_errors(debug: bool) -> Iterator[None]:
    """Whatever goes wrong, a user gets one line; --debug shows the rest."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        from flows.console import errors

        errors.print("[yellow]stopped[/]: what is done is kept, the same command continues", soft_wrap=True)
        raise typer.Exit(130) from interruption
    except PnpError as error:
        _fail(error, debug)
    except Exception as error:
        message = " ".join(str(error).split())
        _fail(PnpError(f"{type(error).__name__}: {message[:500]} (--debug shows where)"), debug)


def _execute(
    prepare: Callable[[], tuple[Callable[[Any], Any], PipelineConfig]],
    show: Callable[[Any, Any], None],
    as_json: bool,
    debug: bool,
) -> Any:
    """Check everything, run a flow under progress bars, print what came out and return it."""
    _quiet_prefect(debug)
    with _one_line_errors(debug):
        flow, config = prepare()
        from rich.console import Console

        from flows.console import ProgressBars, errors
        from tasks.runtime import observed_by

        with ProgressBars() as bars, observed_by(bars):
            summary = flow(config)
        show(summary, errors if as_json else Console())
        if as_json:
            print(json.dumps(summary.as_json(), ensure_ascii=False), flush=True)
    return summary


def _run(
    prepare: Callable[[], tuple[Callable[[Any], Any], PipelineConfig]], as_json: bool, debug: bool, strict: bool = False
) -> None:
    """Run a flow that makes masks."""

    def show(summary: Any, console: Any) -> None:
        from flows.console import show_summary

        show_summary(summary, console)

    summary = _execute(prepare, show, as_json, debug)
    if not summary.labelled:
        _fail(PnpError("nothing was labelled: every picture was quarantined, see the reasons above"), False)
    if strict and summary.quarantined:
        raise typer.Exit(1)


def _warn(warnings: list[str]) -> None:
    from flows.console import errors

    for warning in warnings:
        errors.print(f"[yellow]warning[/]: {_escape(warning)}", soft_wrap=True)


def _prepare_eval(values: dict[str, Any]) -> tuple[Callable[[Any], Any], PipelineConfig]:
    from pnp_core.plan import check_eval

    config = _build(EvalConfig, values)
    _warn(check_eval(config))
    from flows.evaluation import evaluate_dataset

    return evaluate_dataset, config


def _prepare_label(values: dict[str, Any]) -> tuple[Callable[[Any], Any], PipelineConfig]:
    from pnp_core.plan import check_label

    config = _build(LabelConfig, values)
    _warn(check_label(config))
    from flows.labelling import label_pictures

    return label_pictures, config


def _prepare_tune(values: dict[str, Any]) -> tuple[Callable[[Any], Any], PipelineConfig]:
    from pnp_core.tuning.plan import check_tune

    config = _build(TuneConfig, values)
    _warn(check_tune(config))
    from flows.tuning import tune_dataset

    return tune_dataset, config


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
    dataset: Annotated[str, typer.Argument(help="Dataset card, such as voc21 (see `datasets`); or a card file.")],
    out: Annotated[str, typer.Option(help="Run folder: a path or any fsspec URL.")],
    data: Annotated[str | None, typer.Option(help="Folder of the dataset as distributed, such as VOCdevkit.")] = None,
    split: Annotated[str | None, typer.Option(help="Split; the card's first when not given.")] = None,
    limit: Annotated[int | None, typer.Option(help="Pictures from the start of the split.")] = None,
    shards: Annotated[int | None, typer.Option(help="Number of shards; about 64 pictures each by default.")] = None,
    only_classes: Annotated[
        str | None, typer.Option(help='Score these classes only, separated by commas: "sofa,train".')
    ] = None,
    ground_truth: Annotated[
        str | None, typer.Option(help="Which form of the ground truth, where the card has several.")
    ] = None,
    image_labels: Annotated[str | None, typer.Option(help="Image-level labels from masks or boxes.")] = None,
    mean: Annotated[str | None, typer.Option(help="mIoU over present classes, or union (mmseg).")] = None,
    void_as_background: Annotated[
        bool | None, typer.Option("--void-as-background", help="Score void pixels as background (authors' VOC script).")
    ] = None,
    candidates: CandidatesOption = None,
    candidates_file: CandidatesFileOption = None,
    min_score: MinScoreOption = None,
    top_k: TopKOption = None,
    preset_name: PresetOption = None,
    settings: ConfigOption = None,
    backbone: BackboneOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    batch_size: BatchOption = None,
    png: PngOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Label a dataset that has ground truth, and score it (mIoU, per-class IoU)."""
    own = {"dataset": dataset, "data": data, "split": split, "limit": limit, "shards": shards, "out": out, "png": png}
    own |= {"ground_truth": ground_truth, "image_labels": image_labels}
    own |= {"only_classes": None if only_classes is None else _names(only_classes)}
    own |= {"score": _given(mean=mean, void_as_background=void_as_background) or None}
    model = {"checkpoint": checkpoint, "backbone": backbone, "device": device, "batch_size": batch_size}
    chosen = {"candidates": candidates, "candidates_file": candidates_file, "min_score": min_score, "top_k": top_k}
    values = {**model, **chosen, **own}
    _run(lambda: _prepare_eval(_values(settings, preset=preset_name, **values)), as_json, debug, strict)


@app.command()
def label(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of pictures (recursive), a picture, a .txt list of paths or URLs, a .parquet with an image "
            "column, or tars ('x/*.tar'); local or any fsspec URL."
        ),
    ],
    classes: Annotated[str, typer.Option(help='Class names, separated by commas: "cat,dog,traffic light".')],
    out: Annotated[str, typer.Option(help="Run folder: a path or any fsspec URL.")],
    image_column: Annotated[
        str | None, typer.Option(help="Column of a Parquet source that holds the pictures.")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(help="Quarantine larger pictures; 100 million, at most 178956970.")
    ] = None,
    candidates: CandidatesOption = None,
    candidates_file: CandidatesFileOption = None,
    min_score: MinScoreOption = None,
    top_k: TopKOption = None,
    preset_name: PresetOption = None,
    settings: ConfigOption = None,
    backbone: BackboneOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    batch_size: BatchOption = None,
    png: PngOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make masks for your own pictures. Mask value 0 is background, i the i-th class."""
    own = {"source": source, "classes": _names(classes), "out": out, "png": png, "image_column": image_column}
    model = {"checkpoint": checkpoint, "backbone": backbone, "device": device, "batch_size": batch_size}
    chosen = {"candidates": candidates, "candidates_file": candidates_file, "min_score": min_score, "top_k": top_k}
    values = {**model, **chosen, **own, "max_pixels": max_pixels}
    _run(lambda: _prepare_label(_values(settings, preset=preset_name, **values)), as_json, debug, strict)


@app.command()
def tune(
    dataset: Annotated[
        str, typer.Argument(help="Dataset card, such as voc21; `folder` with --classes for pictures of your own.")
    ],
    out: Annotated[str | None, typer.Option(help="Run folder: a path or any fsspec URL. runs/tune-CARD.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Folder of the dataset; with --classes any source that `label` takes.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split; the card's tuning split when not given.")] = None,
    images: Annotated[int | None, typer.Option(help="Pictures to tune on, drawn at random; 100.")] = None,
    classes: Annotated[str | None, typer.Option(help='Your class names, separated by commas: "cat,dog".')] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Column of a Parquet source that holds the pictures.")
    ] = None,
    only_classes: Annotated[
        str | None, typer.Option(help='These classes only, separated by commas: "sofa,train".')
    ] = None,
    image_labels: Annotated[
        str | None, typer.Option(help="Image-level labels from masks or boxes; boxes where there are some.")
    ] = None,
    reward: Annotated[str | None, typer.Option(help="control, contrast or authors (docs/tuning.md).")] = None,
    clip: Annotated[
        str | None, typer.Option(help="CLIP that judges: tiny (bundled), a name of open_clip, or local-dir:FOLDER.")
    ] = None,
    clip_weights: Annotated[str | None, typer.Option(help="Pretrained tag or weights file of that CLIP.")] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(help="random-search, grid-search, bayesian, ...: any of Gradient-Free-Optimizers by name."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Trials of all layer groups together; 102, or all of a grid.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the search and of the choice of pictures.")] = None,
    compare: Annotated[
        str | None,
        typer.Option(help="Score what was tried with masks, where there are some, for you to see: off, plain, full."),
    ] = None,
    candidates: CandidatesOption = None,
    candidates_file: CandidatesFileOption = None,
    min_score: MinScoreOption = None,
    top_k: TopKOption = None,
    preset_name: PresetOption = None,
    settings: ConfigOption = None,
    backbone: BackboneOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    batch_size: BatchOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Choose layer, head, threshold and blur without masks, and write best.yaml for --config of eval and label.

    Needs image-level labels at most. Run it again and it resumes, in the middle of a search too.
    """
    own = {"dataset": dataset, "out": out or f"runs/tune-{_stem(dataset)}", "data": data, "split": split}
    own |= {"images": images, "image_labels": image_labels, "image_column": image_column}
    own |= {name: _names(text) for name, text in (("classes", classes), ("only_classes", only_classes)) if text}
    own |= {"reward": _given(kind=reward, clip=_given(model=clip, pretrained=clip_weights) or None) or None}
    own |= {"search": _given(optimizer=optimizer, trials=trials, seed=seed) or None}
    own |= {"compare": _given(masks=compare) or None}
    model = {"checkpoint": checkpoint, "backbone": backbone, "device": device, "batch_size": batch_size}
    chosen = {"candidates": candidates, "candidates_file": candidates_file, "min_score": min_score, "top_k": top_k}

    def show(summary: Any, console: Any) -> None:
        from flows.console import show_tuning

        show_tuning(summary, console)

    _execute(
        lambda: _prepare_tune(_values(settings, preset=preset_name, **model, **chosen, **own)), show, as_json, debug
    )


def _stem(dataset: str) -> str:
    """A card's name, also of a card file."""
    return PurePath(dataset).stem


@app.command()
def datasets(as_json: JsonOption = False) -> None:
    """List the dataset cards."""
    from rich.console import Console

    from flows.console import show_cards
    from pnp_core.cards import available_cards, load_card

    cards = [load_card(name) for name in available_cards()]
    show_cards(cards, Console(stderr=as_json))
    if as_json:
        print(json.dumps([card.model_dump(mode="json") for card in cards], ensure_ascii=False))


@app.command()
def check(
    dataset: Annotated[str, typer.Argument(help="Dataset card, such as voc21; or a card file.")],
    data: Annotated[str, typer.Option(help="Folder of the dataset as distributed.")],
    split: Annotated[str | None, typer.Option(help="Split; the card's first when not given.")] = None,
    ground_truth: Annotated[
        str | None, typer.Option(help="Which form of the ground truth, where the card has several.")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Verify a dataset on disk: complete, readable, sizes equal, labels in range. Exit code 1 when not."""
    from rich.console import Console

    from flows.console import ProgressBars, errors, show_check
    from pnp_core.check import check_dataset

    with _one_line_errors(debug), ProgressBars() as bars:
        bars.begin("check", None)
        report = check_dataset(dataset, data, split, ground_truth, lambda n: bars.advance("check", n))
        bars.end("check")
    show_check(report, errors if as_json else Console())
    if as_json:
        print(json.dumps(report.as_json(), ensure_ascii=False))
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def candidates(
    file: Annotated[str, typer.Argument(help="JSON, JSON Lines, CSV or Parquet with classes per picture.")],
    dataset: Annotated[str, typer.Option(help="Dataset card whose classes the file names.")],
    min_score: MinScoreOption = None,
    top_k: TopKOption = None,
    fallback: Annotated[
        str, typer.Option(help="When no class scores enough: best, first (authors), background or none.")
    ] = "best",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Read a file of candidate classes and report what it holds and what had to be repaired."""
    from dataclasses import asdict

    from rich.console import Console

    from flows.console import errors, show_candidates
    from pnp_core.candidates.report import report_file
    from pnp_core.cards import load_card
    from pnp_core.config import CandidatesConfig

    chosen = {"source": "file", "file": file, "fallback": fallback, "min_score": min_score, "top_k": top_k}
    with _one_line_errors(debug):
        report = report_file(file, load_card(dataset), _build(CandidatesConfig, _given(**chosen)))
    show_candidates(report, errors if as_json else Console())
    if as_json:
        print(json.dumps(asdict(report), ensure_ascii=False))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


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
