"""Command tune."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Annotated, Any

import typer

from flows.cli.options import (
    DebugOption,
    ExcludeOption,
    FetchSecondsOption,
    FollowLinksOption,
    JsonOption,
    PipelineOptions,
    build,
    given,
    names,
    with_pipeline_options,
)
from flows.cli.running import execute, warn
from pnp_core.config import PipelineConfig
from pnp_core.tuning.config import TuneConfig


def _prepare_tune(values: dict[str, Any]) -> tuple[Callable[[Any], Any], PipelineConfig]:
    from pnp_core.tuning.plan import check_tune

    config = build(TuneConfig, values)
    warn(check_tune(config))
    from flows.tuning import tune_dataset

    return tune_dataset, config


@with_pipeline_options
def tune(
    options: PipelineOptions,
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
    follow_links: FollowLinksOption = None,
    exclude: ExcludeOption = None,
    fetch_seconds: FetchSecondsOption = None,
    only_classes: Annotated[
        str | None, typer.Option(help='These classes only, separated by commas: "sofa,train".')
    ] = None,
    image_labels: Annotated[
        str | None, typer.Option(help="Image-level labels from masks or boxes; boxes where there are some.")
    ] = None,
    reward: Annotated[str | None, typer.Option(help="control, contrast or authors (docs/tuning.md).")] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="Who judges regions: clip, or match (the model's own match score; usual for photo)."),
    ] = None,
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
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Choose layer, head, threshold and blur without masks, and write best.yaml for --config of eval and label.

    Needs image-level labels at most. Run it again and it resumes, in the middle of a search too.
    """
    own = {"dataset": dataset, "out": out or f"runs/tune-{_stem(dataset)}", "data": data, "split": split}
    own |= {"images": images, "image_labels": image_labels, "image_column": image_column}
    own |= {
        "exclude": exclude,
        "fetch_seconds": fetch_seconds,
        "follow_links": follow_links,
        "classes": names(classes),
        "only_classes": names(only_classes),
    }
    asked = given(model=clip, pretrained=clip_weights)
    own |= {"reward": given(kind=reward, judge=judge, clip=asked)}
    own |= {"search": given(optimizer=optimizer, trials=trials, seed=seed), "compare": given(masks=compare)}

    def show(summary: Any, console: Any) -> None:
        from flows.cli.console import show_tuning

        show_tuning(summary, console)

    execute(lambda: _prepare_tune(options.values(own)), show, as_json, debug)


def _stem(dataset: str) -> str:
    """A card's name, also of a card file."""
    return PurePath(dataset).stem
