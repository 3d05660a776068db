"""Commands that hand on what a run made: view, export."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.options import DebugOption, JsonOption
from flows.cli.running import Interruptible, one_line_errors
from pnp_core.text.visible import visible, visible_json


def view(
    run: Annotated[
        str,
        typer.Argument(help="Folder of a run, of tables or of a comparison, or of several: a path or any fsspec URL."),
    ],
    port: Annotated[
        int | None,
        typer.Option(
            help="Port on 127.0.0.1, a free one when 0; without it the same for the folder each time, or the next that "
            "is free.",
            min=0,
            max=65535,
        ),
    ] = None,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    debug: DebugOption = False,
) -> None:
    """Show the page of a run, of tables or of a comparison in the browser, until Ctrl-C; of a folder of runs a list.

    What is decided there is saved in the run folder, report/review.json.
    """
    import webbrowser
    from threading import Thread

    from flows.cli.console import errors
    from flows.cli.progress import ProgressBars
    from flows.viewing import report_server

    with one_line_errors(debug, kept="the page is served no longer"), Interruptible(ProgressBars()):
        server = report_server(run, port)
        url = server.address
        print(f"{url}  (Ctrl-C ends it)", flush=True)
        serving = Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            if browser and not webbrowser.open(url):
                errors.print("no browser found: open the address yourself", soft_wrap=True)
            serving.join()
        finally:
            server.shutdown()
            server.server_close()


def export(
    run: Annotated[str, typer.Argument(help="Run folder, or output folder of label-corpus: a path or fsspec URL.")],
    to: Annotated[
        str,
        typer.Option(
            help="To train with: mmseg, coco-rle, yolo, voc, hf (Hugging Face datasets), webdataset, png, scores (soft "
            "maps). To mend by hand: labelstudio, cvat."
        ),
    ],
    out: Annotated[str | None, typer.Option(help="Folder for it; RUN/export/FORMAT when not given.")] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            help="Pixels less confident than this become 255 (void). Needs a run with --confidence.", min=0, max=1
        ),
    ] = None,
    images: Annotated[
        bool | None,
        typer.Option("--pictures/--no-pictures", help="Also write the pictures; by default for all but png, scores."),
    ] = None,
    instances: Annotated[
        bool,
        typer.Option(
            "--instances",
            help="Each connected piece of a class is an object, not each class: coco-rle, voc, labelstudio, cvat (yolo "
            "always).",
        ),
    ] = False,
    min_area: Annotated[
        int, typer.Option(help="Connected pieces of a class with fewer pixels become void.", min=0)
    ] = 0,
    min_confidence: Annotated[
        float,
        typer.Option(
            help="Connected pieces whose mean confidence is lower become void. Needs a run with --confidence.",
            min=0,
            max=1,
        ),
    ] = 0.0,
    only: Annotated[
        str | None,
        typer.Option(
            help="No other pictures: accepted, rejected or open, as was decided in the report, or a file of keys, one "
            "per line (./accepted for a file of that name).",
            metavar="DECISION|FILE",
        ),
    ] = None,
    leave_out: Annotated[
        str | None,
        typer.Option("--except", help="All pictures but these, said as for --only.", metavar="DECISION|FILE"),
    ] = None,
    review: Annotated[
        str | None,
        typer.Option(
            help="Decisions of this file, and not of RUN/report/review.json: a path or any fsspec URL.", metavar="FILE"
        ),
    ] = None,
    val: Annotated[
        float | None,
        typer.Option(
            help="Share of pictures for a validation split, by the digest of their keys: mmseg, yolo, voc, hf, "
            "webdataset."
        ),
    ] = None,
    skip_empty: Annotated[
        bool, typer.Option("--skip-empty", help="Leave out pictures whose mask has no class.")
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write masks in the form that training code or a tool for labelling reads."""
    from rich.console import Console

    from flows.cli.console import errors, show_review
    from flows.cli.progress import ProgressBars
    from pnp_core.export import WITHOUT_IMAGES, export_run

    with one_line_errors(debug, kept="the export is not whole, the same command makes it anew"):
        place = out or f"{run.rstrip('/')}/export/{to}"
        wanted = to not in WITHOUT_IMAGES if images is None else images
        with ProgressBars() as bars, Interruptible(bars):
            done = export_run(
                run,
                to,
                place,
                confidence,
                wanted,
                skip_empty,
                bars.counter("export"),
                instances=instances,
                min_area=min_area,
                min_confidence=min_confidence,
                only=only,
                leave_out=leave_out,
                review=review,
                val=val,
            )
            bars.end("export")
    console = errors if as_json else Console()
    console.print(
        f"{done.images} pictures with masks in {visible(place)}", soft_wrap=True, markup=False, highlight=False
    )
    if done.review:
        show_review(done.review, console)
    if done.missing:
        console.print(f"{done.missing} pictures of the run have no mask: quarantined, or their shard failed")
    if done.splits:
        console.print(", ".join(f"{split} {number}" for split, number in done.splits.items()))
    if done.dropped:
        console.print(f"{done.dropped} pieces are void: too small, or too unsure")
    if done.skipped:
        console.print(f"{done.skipped} without any class left out")
    if confidence is not None:
        console.print(f"{100 * done.void:.1f}% of the pixels are void, below confidence {confidence:g}")
    if as_json:
        print(visible_json(done.as_json()))
