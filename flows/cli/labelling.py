"""Commands that make masks: demo, eval, label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import (
    ConfidenceOption,
    DebugOption,
    ExcludeOption,
    FetchSecondsOption,
    FollowLinksOption,
    JsonOption,
    PipelineOptions,
    PngOption,
    StrictOption,
    build,
    given,
    names,
    with_pipeline_options,
)
from flows.cli.running import execute, fail, warn
from pnp_core.config import EvalConfig, LabelConfig, PipelineConfig
from pnp_core.data import RunSummary
from pnp_core.errors import PnpError

if TYPE_CHECKING:
    from rich.console import Console


def _run(
    prepare: Callable[[], tuple[Callable[[Any], Any], PipelineConfig]], as_json: bool, debug: bool, strict: bool = False
) -> None:
    """Run a flow that makes masks."""

    def show(summary: Any, console: Any) -> None:
        from flows.cli.console import show_summary

        show_summary(summary, console)

    summary = execute(prepare, show, as_json, debug)
    _checked(summary)
    if strict and summary.quarantined:
        raise typer.Exit(1)


def _checked(done: RunSummary | Demo) -> None:
    if not done.labelled:
        fail(PnpError("nothing was labelled: every picture was quarantined, see the reasons above"), False)


def _prepare_eval(values: dict[str, Any]) -> tuple[Callable[[Any], Any], PipelineConfig]:
    from pnp_core.runs.preflight import check_eval

    config = build(EvalConfig, values)
    warn(check_eval(config))
    from flows.evaluation import evaluate_dataset

    return evaluate_dataset, config


def _prepare_label(values: dict[str, Any]) -> tuple[Callable[[Any], Any], PipelineConfig]:
    from pnp_core.runs.preflight import check_label

    config = build(LabelConfig, values)
    warn(check_label(config))
    from flows.labelling import label_pictures

    return label_pictures, config


@dataclass(frozen=True)
class Demo:
    """What both runs of the demo came to."""

    scenes: RunSummary
    photographs: RunSummary

    @property
    def labelled(self) -> int:
        """Nothing, when one of the runs labelled nothing."""
        return min(self.scenes.labelled, self.photographs.labelled)

    def as_json(self) -> dict[str, Any]:
        """The scenes' object, with the photographs' in it."""
        return {**self.scenes.as_json(), "photographs": self.photographs.as_json()}


PHOTOGRAPHS = files("pnp_core") / "_photographs"
"""Of CC0 or in the public domain, see NOTICE."""
ON_PHOTOGRAPHS = "cat, person, cup, rocket, camera, dog, car, train, bottle"


def demo(
    out: Annotated[str, typer.Option(help="Run folder: a path or any fsspec URL.")] = "runs/demo",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Label six photographs, and label and score 200 synthetic test scenes: the whole method, offline.

    The photographs go to a run folder of their own, OUT-photographs. Both get masks, a contact sheet and a report. Run
    it again and it resumes.
    """

    def prepare() -> tuple[Callable[[Any], Demo], PipelineConfig]:
        own = {"source": str(PHOTOGRAPHS), "classes": names(ON_PHOTOGRAPHS), "out": f"{out.rstrip('/')}-photographs"}
        label_photographs, photographs = _prepare_label(own)
        label_scenes, scenes = _prepare_eval({"out": out})
        return lambda _: Demo(scenes=label_scenes(scenes), photographs=label_photographs(photographs)), scenes

    def show(done: Demo, console: Console) -> None:
        from flows.cli.console import show_summary

        show_summary(done.photographs, console)
        show_summary(done.scenes, console)

    _checked(execute(prepare, show, as_json, debug))


@with_pipeline_options
def evaluate(
    options: PipelineOptions,
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
    png: PngOption = None,
    confidence: ConfidenceOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Label a dataset that has ground truth, and score it (mIoU, per-class IoU)."""
    own = {"dataset": dataset, "data": data, "split": split, "limit": limit, "shards": shards, "out": out, "png": png}
    own |= {"ground_truth": ground_truth, "image_labels": image_labels, "only_classes": names(only_classes)}
    own |= {"score": given(mean=mean, void_as_background=void_as_background)}
    own |= {"masks": given(confidence=confidence)}
    _run(lambda: _prepare_eval(options.values(own)), as_json, debug, strict)


@with_pipeline_options
def label(
    options: PipelineOptions,
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
    follow_links: FollowLinksOption = None,
    exclude: ExcludeOption = None,
    fetch_seconds: FetchSecondsOption = None,
    png: PngOption = None,
    confidence: ConfidenceOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make masks for your own pictures. Mask value 0 is background, i the i-th class."""
    own = {"source": source, "classes": names(classes), "out": out, "png": png, "image_column": image_column}
    own |= {"exclude": exclude, "follow_links": follow_links, "fetch_seconds": fetch_seconds}
    own |= {"salience": given(max_pixels=max_pixels), "masks": given(confidence=confidence)}
    _run(lambda: _prepare_label(options.values(own)), as_json, debug, strict)
