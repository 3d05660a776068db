"""The comparison of finished runs: one HTML page that needs nothing but itself, and its numbers for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2.utils import htmlsafe_json_dumps

from pnp_core.data import IGNORE
from pnp_core.inputs.images import decode_image
from pnp_core.report.comparing import Counts, Totals, count, image_miou, mean_iou, scored_labels
from pnp_core.report.embedding import digest, fitted, nearest, palette_png, photo, resource
from pnp_core.report.pairing import VOID, Pairing, ReadRun, Shared, pair_runs
from pnp_core.storage.ownership import check_ours, writing
from pnp_core.storage.run_folder import RunFolder
from pnp_core.text.html import templates_of
from pnp_core.text.visible import visible

PAGE, RECORD = "index.html", "compare.json"
PAGE_BYTES = 24_000_000
"""The page is never larger."""
IMAGES = 1000
"""Pictures in the page at most."""
SIDES = (96, 320)
"""Longer side of a thumbnail in pixels: least and most; the more pictures, the smaller."""
_RESERVE = 2_000_000
"""Bytes for everything but the pictures."""
_BYTES_PER_PIXEL = 0.25
"""Of a thumbnail and of each of its layers, roughly."""
NOTHING = "\N{EN DASH}"
SETTINGS_SHOWN = 8
"""Settings that differ are shown up to so many; the others unfold."""
_CHANGE_NO_MASK = ("out", "config_file", "png", "dispatch", "runtime")
"""Settings that say where and how fast, not what."""
DIFFERENT = {
    "differ": "#d55e00",
    "only_first": "#0072b2",
    "only_second": "#d55e00",
    "some_right": "#0072b2",
    "none_right": "#cc79a7",
    "not scored": "#999999",
}
"""Kinds of pixels on which runs differ, in colours that colour-blind people can tell apart (Okabe and Ito)."""


@dataclass(frozen=True)
class CompareSummary:
    """What a comparison says in short.

    Attributes:
        images: pictures that were compared.
        equal: of these the ones whose masks are the same.
        share: of all pixels those that differ, in [0, 1].
        apart: per run the number of its pictures that not all others have.
        unlike: pictures of one key that are not the same.
        shown: pictures in the page.
    """

    out: str
    runs: tuple[str, ...]
    images: int
    equal: int
    share: float
    miou: tuple[float | None, ...]
    apart: tuple[int, ...]
    unlike: int
    shown: int

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        values = {**vars(self), "runs": list(self.runs), "miou": list(self.miou), "apart": list(self.apart)}
        return {"pictures": values.pop("images"), **values}


def page_script() -> str:
    """The script of the page, the same in all pages of this version."""
    return "\n".join(map(resource, ("pages.js", "layers.js", "compare.js")))


def compare_runs(urls: list[str], out: str, budget: int = PAGE_BYTES) -> CompareSummary:
    """Compare finished runs, and write the page and its numbers into a folder.

    Args:
        urls: run folders, each a path or any fsspec URL.
        budget: bytes the page may have; of more pictures those that differ most are in it.

    Raises:
        UsageError: fewer than two runs, one twice, or they have no picture in common.
        CorruptRunError: one is not finished, or damaged.
        OutputError: the folder holds something else, or cannot be written.
    """
    check_ours(RunFolder(out), "comparison")  # before anything is read
    pairing = pair_runs(urls)
    with writing(out, "comparison"):
        totals = count(pairing, IMAGES)
        page, shown = compare_page(pairing, totals, budget)
        folder = RunFolder(out)
        folder.write(PAGE, page)
        summary = _summary(pairing, totals, out, shown)
        folder.write_json(RECORD, {"made_by": "pnp-ovss compare", **summary.as_json(), **_numbers(pairing, totals)})
    return summary


def _summary(pairing: Pairing, totals: Totals, out: str, shown: int) -> CompareSummary:
    scored = scored_labels(pairing)
    return CompareSummary(
        out,
        tuple(run.url for run in pairing.runs),
        totals.images,
        totals.equal,
        totals.share,
        tuple(mean_iou(run.iou(totals.truth), totals.truth, scored) for run in totals.runs),
        tuple(left.number for left in pairing.apart),
        pairing.unlike.number,
        shown,
    )


def _numbers(pairing: Pairing, totals: Totals) -> dict[str, Any]:
    """All numbers of the page's tables."""
    pairs = [{"runs": list(pair), "share": pixels / max(1, totals.pixels)} for pair, pixels in totals.pairs.items()]
    return {"pairs": pairs, "classes": _class_rows(pairing, totals)}


def compare_page(pairing: Pairing, totals: Totals, budget: int) -> tuple[bytes, int]:
    """The page in UTF-8, and how many pictures are in it."""
    images = _within(_records(pairing, totals, _side(pairing, totals, budget)), budget - _RESERVE)
    kinds = _kinds(pairing)
    data = {
        "labels": [
            {"name": visible(name), "colour": f"#{bytes(colour).hex()}"}
            for name, colour in zip(pairing.classes.names, pairing.classes.colours, strict=True)
        ],
        "runs": [{"letter": run.letter, "name": visible(run.name)} for run in pairing.runs],
        "kinds": [{"name": name, "colour": colour} for name, colour in kinds],
        "pictures": images,
    }
    script = page_script()
    style = resource("pages.css") + resource("compare.css")
    settings = settings_that_differ([run.record.config.model_dump(mode="json") for run in pairing.runs])
    page = templates_of("pnp_core.report").get_template("compare.html").render(
        runs=pairing.runs,
        letters=[run.letter for run in pairing.runs],
        totals=totals,
        facts=_facts(pairing, totals),
        pairs=[
            (pairing.runs[i].letter, pairing.runs[j].letter, pixels / max(1, totals.pixels))
            for (i, j), pixels in totals.pairs.items()
        ],
        scored=totals.scored > 0,
        with_truth=pairing.with_truth,
        classes=_class_rows(pairing, totals),
        apart=[(run, left) for run, left in zip(pairing.runs, pairing.apart, strict=True) if left.number],
        unlike=pairing.unlike,
        settings=settings,
        settings_shown=SETTINGS_SHOWN,
        shown=len(images),
        data=htmlsafe_json_dumps(data, ensure_ascii=False, separators=(",", ":")),
        script=script,
        style=style,
        script_digest=digest(script),
        style_digest=digest(style),
    )  # fmt: skip
    return page.encode(), len(images)


def _facts(pairing: Pairing, totals: Totals) -> list[tuple[str, list[str]]]:
    """The table of runs: a title, and a text of each."""
    scored = scored_labels(pairing)
    rows = [
        ("run folder", [run.url for run in pairing.runs]),
        ("of", [_subject(run) for run in pairing.runs]),
        ("method", [_setting(run, "method", "name") for run in pairing.runs]),
        ("model", [run.finished.model for run in pairing.runs]),
        ("preset", [_setting(run, "preset") for run in pairing.runs]),
        ("mIoU of the whole run", [_rate(run.record.summary.miou) for run in pairing.runs]),
    ]
    if totals.scored:
        common = [mean_iou(run.iou(totals.truth), totals.truth, scored) for run in totals.runs]
        rows.append((f"mIoU of {totals.scored:,} pictures in common", [_rate(value) for value in common]))
    confidence = [_rate(run.confidence / max(1, totals.images)) for run in totals.runs]
    rows.append(("mean confidence, pictures in common", confidence))
    rows.append(("pictures with masks", [f"{run.record.summary.labelled:,}" for run in pairing.runs]))
    rows.append(("quarantined", [f"{run.record.summary.quarantined:,}" for run in pairing.runs]))
    return rows


def _subject(run: ReadRun) -> str:
    config = run.record.config.model_dump()
    return str(config.get("dataset") or config.get("source") or NOTHING)


def _setting(run: ReadRun, *path: str) -> str:
    value: Any = run.record.config.model_dump()
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return NOTHING if value is None else str(value)


def _rate(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def settings_that_differ(configurations: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Paths of settings that are not the same in all configurations, with the value of each; what says where and how
    fast is left out.

    >>> settings_that_differ([{"out": "a", "masks": {"blur": 0.0}}, {"out": "b", "masks": {"blur": 0.1}}])
    [('masks.blur', ['0.0', '0.1'])]
    """
    flat = [dict(_flattened(values)) for values in configurations]
    paths = list(dict.fromkeys(path for values in flat for path in values))
    rows = [(path, [values.get(path, NOTHING) for values in flat]) for path in paths]
    return [(path, values) for path, values in rows if len(set(values)) > 1]


def _flattened(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if not above and name in _CHANGE_NO_MASK:
            continue
        if isinstance(value, dict):
            yield from _flattened(value, f"{above}{name}.")
        elif value is not None:
            yield f"{above}{name}", str(value)


def _class_rows(pairing: Pairing, totals: Totals) -> list[dict[str, Any]]:
    """The table of classes: what each run found of each, how right that is, and how far they agree."""
    rows = []
    ious = [run.iou(totals.truth) for run in totals.runs]
    most = max((int(run.pixels[1:].max(initial=0)) for run in totals.runs), default=0)
    for label, name in enumerate(pairing.classes.names):
        known = [not label or name in run.finished.classes for run in pairing.runs]
        if not totals.named[label] and not totals.truth[label] and all(known):
            continue  # nobody found it, and nobody was to
        named = int(totals.named[label])
        of_runs = [
            _of_run(run, label, iou[label], have, most) for run, iou, have in zip(totals.runs, ious, known, strict=True)
        ]
        row = {"label": label, "name": name, "truth": int(totals.truth[label]), "runs": of_runs}
        rows.append(row | {"agreement": int(totals.agreed[label]) / named if named else None})
    return rows


def _of_run(run: Counts, label: int, iou: float, known: bool, most: int) -> dict[str, Any]:
    """What a run found of a class; None where its own list of classes lacks it."""
    if not known:
        return {"known": False, "iou": None, "images": None, "pixels": None, "bar": 0.0}
    pixels = int(run.pixels[label])
    there = None if math.isnan(iou) else float(iou)
    # The background has so many pixels that the classes' bars would not be seen beside it.
    return {
        "known": True,
        "iou": there,
        "images": int(run.images[label]),
        "pixels": pixels,
        "bar": min(1.0, pixels / max(1, most)),
    }


def _side(pairing: Pairing, totals: Totals, budget: int) -> int:
    """Longer side of a thumbnail in pixels."""
    shown = sum(map(len, totals.shown.values()))
    pixels = 0.75 * (budget - _RESERVE) / max(1, shown) / _BYTES_PER_PIXEL / (len(pairing.runs) + 3)
    return min(max(int(max(0.0, pixels) ** 0.5), SIDES[0]), SIDES[1])


def _records(pairing: Pairing, totals: Totals, side: int) -> Iterator[dict[str, Any]]:
    """The pictures that are shown as the page's script takes them, by the shard."""
    scored = scored_labels(pairing)
    first = pairing.runs[0]
    for number, part in enumerate(first.parts):
        keys = set(totals.shown.get(number, ()))
        if not keys:
            continue
        # One picture after the other, both in the order of the part: whole maps of all would not fit into memory.
        ordered = [key for key in pairing.keys(part) if key in keys]
        shared = pairing.shared(part, ordered)
        for sample, image in zip(first.samples(part, keys), shared, strict=True):
            pixels = decode_image(sample.image, _max_pixels(first), side).pixels
            yield _record(pairing, image, pixels, side, scored)


def _max_pixels(run: ReadRun) -> int:
    """The most pixels that a picture of a run may have."""
    value = (run.record.config.model_extra or {}).get("salience", {}).get("max_pixels")
    return value if isinstance(value, int) else 100_000_000


def _record(pairing: Pairing, image: Shared, pixels: np.ndarray, side: int, scored: np.ndarray) -> dict[str, Any]:
    height, width = image.maps[0].shape
    size = fitted(width, height, side)
    labels = len(pairing.classes.names)
    found = [np.bincount(one[one != VOID], minlength=labels) for one in image.maps]
    truth = None if image.truth is None else np.bincount(image.truth[image.truth != VOID], minlength=labels)
    return {
        "key": visible(image.key),
        "source": visible(image.source[:300]),
        "size": [width, height],
        "thumbnail": list(size),
        "differ": round(float(image.differ.mean()), 5),
        "miou": [None if value is None else round(value, 4) for value in image_miou(image, scored)],
        "shares": [_shares(pixels_of, image.maps[0].size) for pixels_of in found],
        "truth_shares": None if truth is None else _shares(truth, image.maps[0].size),
        "photo": photo(pixels, size),
        "masks": [_layer(nearest(one, size), pairing.classes.colours) for one in image.maps],
        "difference": _difference(pairing, image, size),
        "truth": None if image.truth is None else _layer(nearest(image.truth, size), pairing.classes.colours),
    }


def _shares(pixels: np.ndarray, of: int) -> dict[str, float]:
    """Share of a picture by label, background left out."""
    return {str(label): round(int(pixels[label]) / of, 5) for label in np.flatnonzero(pixels).tolist() if label}


def _layer(labels: np.ndarray, colours: np.ndarray) -> str:
    """Labels in their colours; background is clear, void white."""
    used, compact = np.unique(labels, return_inverse=True)
    palette = np.full((256, 3), IGNORE, np.uint8)
    opacity = [255] * 256
    for place, label in enumerate(used[:256].tolist()):
        if label != VOID:
            palette[place] = colours[label]
        opacity[place] = 0 if label == 0 else 255
    return palette_png(compact.reshape(labels.shape).clip(0, 255), palette, opacity)


def _kinds(pairing: Pairing) -> list[tuple[str, str]]:
    """What the layer of differences tells apart, and its colours; codes from 1 are places in this list."""
    if pairing.with_truth is None:
        return [("not the same class", DIFFERENT["differ"])]
    if len(pairing.runs) == 2:
        first, second = (run.letter for run in pairing.runs)
        named = [(f"only {first} is right", "only_first"), (f"only {second} is right", "only_second")]
    else:
        named = [("some are right", "some_right")]
    named += [("none is right", "none_right"), ("differ, not scored", "not scored")]
    return [(words, DIFFERENT[kind]) for words, kind in named]


def _difference(pairing: Pairing, image: Shared, size: tuple[int, int]) -> str:
    """Where runs differ, in the colours of `_kinds`; where they agree it is clear."""
    kinds = _kinds(pairing)
    codes = nearest(_codes(pairing, image), size)
    colours = np.zeros((256, 3), np.uint8)
    colours[1 : len(kinds) + 1] = [list(bytes.fromhex(colour[1:])) for _, colour in kinds]
    return palette_png(codes, colours, [0] + [255] * 255)


def _codes(pairing: Pairing, image: Shared) -> np.ndarray:
    differ, truth = image.differ, image.truth
    if pairing.with_truth is None:
        return differ.astype(np.uint8)
    last = len(_kinds(pairing))
    if truth is None:
        return np.where(differ, last, 0).astype(np.uint8)
    right = [one == truth for one in image.maps]
    own = [differ & one for one in right] if len(right) == 2 else [differ & np.any(right, axis=0)]
    conditions = [differ & (truth == VOID), *own, differ]
    return np.select(conditions, [last, *range(1, len(own) + 1), len(own) + 1], 0).astype(np.uint8)


def _within(records: Iterator[dict[str, Any]], budget: int) -> list[dict[str, Any]]:
    """As many pictures as fit into so many bytes, those that differ most first."""
    kept, left = [], budget
    # Records are made by the shard, so that one that differs little may come first: it gives way.
    for record in records:
        size = len(htmlsafe_json_dumps(record).encode())
        kept.append((record["differ"], size, record))
        left -= size
        while left < 0 and kept:
            least = min(range(len(kept)), key=lambda place: kept[place][0])
            left += kept.pop(least)[1]
    return [record for _, _, record in sorted(kept, key=lambda one: (-one[0], one[2]["key"]))]
