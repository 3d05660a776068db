"""The report of a run: one HTML page that needs nothing but itself.

Texts from data (file names, class names, comments, reasons) reach the page in two ways: through the template, which
escapes them, and as JSON, of which the script makes text nodes only. A content security policy allows no script and
no style but the page's own, by their digests, and no request but to the place that the page is from: for the pictures
beside it, and for the review that `pnp-ovss view` keeps (`pnp_core.runs.review`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import yaml
from jinja2.utils import htmlsafe_json_dumps

from pnp_core.config import LabellingConfig
from pnp_core.data import RunSummary, ShardRef
from pnp_core.report.embedding import digest, resource
from pnp_core.report.gallery import Survey, gallery, survey
from pnp_core.report.layers import ERRORS
from pnp_core.report.palette import display_palette
from pnp_core.report.pictures import Pictures
from pnp_core.runs.plan import Plan
from pnp_core.runs.preflight import remarks
from pnp_core.runs.reasons import grouped
from pnp_core.runs.review import MOST_TAGS, NOTE_LENGTH, REVIEW_BYTES, TAG_LENGTH, review_id
from pnp_core.stages.scores import merge_counts
from pnp_core.storage.provenance import versions
from pnp_core.storage.run_folder import REPORT, RunFolder
from pnp_core.text.html import preformatted, templates_of
from pnp_core.text.visible import visible

PAGE = REPORT
PAGE_BYTES = 24_000_000
"""The page is never larger."""
IMAGES = 2000
"""Pictures in the gallery at most."""
QUARANTINED = 1000
"""Quarantined pictures in the page at most; their tables have all."""
CONFUSIONS = 20_000
"""Entries of the confusion matrix in the page at most, the largest."""
SCRIPTS = ("core.js", "review.js", "layers.js", "tiles.js", "find.js", "closely.js", "tables.js", "report.js")
"""Parts of the page's script, in their order: what the last one starts, the ones before it define."""
_RESERVE = 4_000_000
"""Bytes for everything but the pictures' images."""


def page_script() -> str:
    """The script of the page, the same in all pages of this version."""
    return "\n".join(map(resource, SCRIPTS))


def report_page(
    config: LabellingConfig,
    plan: Plan,
    shards: Sequence[ShardRef],
    summary: RunSummary,
    budget: int = PAGE_BYTES,
    beside: bool = False,
) -> bytes:
    """The page of a run, in UTF-8.

    Args:
        shards: those that have masks.
        budget: bytes it may have; the more pictures, the smaller they are shown, and what does not fit is left out
            and counted.
        beside: also leave the pictures with their own pixels in the run's folder, see `pictures`.
    """
    found = survey(plan, shards, IMAGES)
    pictures = Pictures(RunFolder(plan.masks.out), found.number_shown) if beside and shards else None
    images, no_room = gallery(plan, shards, found, budget - _RESERVE, pictures)
    if pictures:
        pictures.settle()
    matrix = _matrix(plan, shards)
    data = {
        "labels": _labels(plan),
        "pictures": images,
        "matrix": _entries(matrix),
        "totals": [] if matrix is None else matrix.sum(axis=1).tolist(),
        "errors": ERRORS,
        "named": plan.score is None,
        "run": review_id(plan.masks.folder.run, plan.masks.fingerprint),
        "review": {"tags": MOST_TAGS, "tag": TAG_LENGTH, "note": NOTE_LENGTH, "bytes": REVIEW_BYTES},
    }
    rows, reasons = _quarantined(plan)
    script, style = page_script(), resource("report.css")
    page = templates_of("pnp_core.report").get_template("report.html").render(
        title=_title(config),
        about=_about(config, summary),
        warnings=[*summary.scores.get("warnings", ()), *remarks(plan.salience)],
        confused=matrix is not None and bool(matrix.any()),
        summary=summary,
        plan=plan,
        found=found,
        shown=len(images),
        left_out=found.images - len(images),
        no_room=no_room,
        classes=_class_rows(plan, found, matrix),
        quarantined=rows,
        reasons=list(grouped(reasons).items()),
        configuration=preformatted(
            yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        ),
        versions=versions(),
        data=htmlsafe_json_dumps(data, ensure_ascii=False, separators=(",", ":")),
        script=script,
        style=style,
        script_digest=digest(script),
        style_digest=digest(style),
    )  # fmt: skip
    return page.encode()


def _title(config: LabellingConfig) -> str:
    """What was labelled."""
    values = config.model_dump()
    return str(values.get("dataset") or values.get("source"))


def _about(config: LabellingConfig, summary: RunSummary) -> str:
    """Which pictures, and how their candidate classes were chosen."""
    limit = getattr(config, "limit", None)
    parts = [
        getattr(config, "split", None) and f"split {config.model_dump()['split']}",
        limit and f"the first {limit} pictures only",
        summary.part and f"scored on {summary.part} of the split",
        f"candidate classes: {_CANDIDATES.get(config.salience.candidates.source, config.salience.candidates.source)}",
    ]
    return "; ".join(part for part in parts if part)


_CANDIDATES = {
    "labels": "the image-level labels of each picture, taken as known",
    "vocabulary": "every class, for every picture",
    "itm": "those the model matches with the picture",
    "clip": "those CLIP finds in the picture",
    "file": "from a file",
}


def _labels(plan: Plan) -> list[dict[str, str]]:
    """Name and colour of the labels 0, 1 ..."""
    colours = display_palette(plan.masks.label_type)
    names = ("background", *plan.masks.class_names)
    return [{"name": visible(name), "colour": f"#{bytes(colours[i]).hex()}"} for i, name in enumerate(names)]


def _matrix(plan: Plan, shards: Sequence[ShardRef]) -> np.ndarray | None:
    """Pixel counts, row = ground truth; None without ground truth."""
    return merge_counts(plan.score, shards)[0].counts if plan.score and shards else None


def _entries(matrix: np.ndarray | None) -> list[list[int]]:
    """The largest entries of a confusion matrix: truth, prediction, pixels."""
    if matrix is None:
        return []
    rows, columns = np.nonzero(matrix)
    order = np.argsort(-matrix[rows, columns], kind="stable")[:CONFUSIONS]
    return np.stack([rows, columns, matrix[rows, columns]], axis=1)[order].tolist()


def _class_rows(plan: Plan, found: Survey, matrix: np.ndarray | None) -> list[dict[str, Any]]:
    """The table of classes: what was found of each, and how right that is where there is ground truth."""
    labels = plan.score.scored if plan.score else range(1, len(plan.masks.class_names) + 1)
    rows, names = [], ("background", *plan.masks.class_names)
    for label in labels:
        value = plan.masks.values[label]
        if label and not value:  # a query for background
            continue
        count = found.classes[value]
        row: dict[str, Any] = {"label": label, "name": names[label], "pictures": count.found}
        row |= {"candidate": count.candidate, "pixels": count.pixels}
        rows.append(row | (_rates(matrix, label) if matrix is not None else {}))
    return rows


def _rates(matrix: np.ndarray, label: int) -> dict[str, float | None]:
    """IoU, precision and recall of a label; None where nothing can be said."""
    right, truth, prediction = (int(n) for n in (matrix[label, label], matrix[label].sum(), matrix[:, label].sum()))

    def share(total: int) -> float | None:
        return right / total if total else None

    return {"iou": share(truth + prediction - right), "precision": share(prediction), "recall": share(truth)}


def _quarantined(plan: Plan) -> tuple[list[dict[str, str]], Counter[str]]:
    """The first quarantined pictures, and how many there are for each reason."""
    rows, reasons = [], Counter[str]()
    for folder in (plan.salience.folder, plan.masks.folder):
        for file in folder.run.glob(folder.quarantine_file("*")):
            images = folder.quarantined(PurePosixPath(file).stem)
            reasons.update(image.reason for image in images)
            rows += [vars(image) for image in images[: QUARANTINED - len(rows)]]
    return rows, reasons
