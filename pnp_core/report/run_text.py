"""What a run that made masks found, as Markdown with a few pictures, for Prefect's page of the run."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image

from pnp_core.data import RunSummary, ShardRef
from pnp_core.report.contact_sheet import GAP, overlay, tile
from pnp_core.report.palette import display_palette
from pnp_core.report.rows import Row, first_rows
from pnp_core.runs.plan import Plan
from pnp_core.text.markdown import markdown_code, markdown_text

IMAGES = 4
QUALITY = 70
"""Of the JPEG files: about 10 kB each, since they travel in the page."""


def run_markdown(plan: Plan, shards: Sequence[ShardRef], summary: RunSummary) -> str:
    """Counts, reasons for quarantine, and a few pictures beside their masks."""
    lines = [f"## {summary.labelled} of {summary.images} pictures labelled", ""]
    if summary.scores:
        miou, accuracy = (_rate(summary.scores[name]) for name in ("miou", "pixel_accuracy"))
        part = f", on {summary.part} of the split" if summary.part else ""
        lines += [f"**mIoU {miou}**, pixel accuracy {accuracy}{part}", ""]
        lines += [line for warning in summary.scores.get("warnings", ()) for line in (markdown_text(warning), "")]
    lines += [
        "| stage | shards | resumed | failed | pictures | quarantined | pictures/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, stage in summary.stages.items():
        rate = f"{stage.images_per_second:.1f}" if stage.images_per_second else "-"
        lines += [
            f"| {name} | {stage.shards} | {stage.shards_resumed} | {stage.shards_failed} | {stage.images} "
            f"| {stage.quarantined} | {rate} |"
        ]
    lines += ["", f"Run folder {markdown_code(summary.out)}, masks {markdown_code(summary.masks)}", ""]
    if summary.reasons:
        lines += ["### Quarantined, by reason", ""]
        lines += [f"- {number} x {markdown_text(reason)}" for reason, number in summary.reasons.items()]
        lines += [""]
    for row in first_rows(plan, shards, IMAGES) if shards else ():
        lines += [_figure(row, plan), ""]
    return "\n".join(lines)


def _figure(row: Row, plan: Plan) -> str:
    """A picture beside its mask, with the classes found."""
    pixels = [row.image, overlay(row.image, row.labels, display_palette(row.labels.dtype))]
    tiles = [tile(p) for p in pixels]
    pair = Image.new("RGB", (2 * tiles[0].width + GAP, tiles[0].height), (255, 255, 255))
    for number, part in enumerate(tiles):
        pair.paste(part, (number * (part.width + GAP), 0))
    buffer = io.BytesIO()
    pair.save(buffer, format="JPEG", quality=QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    names = ", ".join(plan.masks.class_names[label - 1] for label in row.salience.classes) or "none of the classes"
    return (
        f"{markdown_text(row.sample.key)}: {markdown_text(names)}\n\n![picture and mask](data:image/jpeg;base64,{data})"
    )


def _rate(value: float | None) -> str:
    """A share for people; nothing was measured when it is None."""
    return "-" if value is None else f"{value:.3f}"
