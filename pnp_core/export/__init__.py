"""Masks of a run in the form that training code reads. One module per format; `FORMATS` lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from pnp_core.data import Progress, silent
from pnp_core.errors import ForeignFilesError, UsageError
from pnp_core.export.base import Writer
from pnp_core.export.folder import ExportFolder
from pnp_core.export.keys import picked
from pnp_core.export.labelled import SPLITS, Choice, Finished, labelled_images, open_finished
from pnp_core.registry import Registry
from pnp_core.storage.ownership import writing

FORMATS: Registry[Callable[[ExportFolder, Finished, bool], Writer]] = Registry(
    "format",
    "pnp_ovss.exports",
    {
        "mmseg": "pnp_core.export.mmseg:MmSegmentation",
        "coco-rle": "pnp_core.export.coco:CocoRle",
        "hf": "pnp_core.export.hf:HuggingFace",
        "png": "pnp_core.export.png:Png",
        "yolo": "pnp_core.export.yolo:Yolo",
        "voc": "pnp_core.export.voc:PascalVoc",
        "labelstudio": "pnp_core.export.labelstudio:LabelStudio",
        "cvat": "pnp_core.export.cvat:Cvat",
        "webdataset": "pnp_core.export.tars:WebDataset",
        "scores": "pnp_core.export.scores:SoftMaps",
    },
)
"""(target, masks, whether the images are written too) -> writer."""
WITHOUT_IMAGES = frozenset({"png", "scores"})
"""Formats that are written without the images unless they are asked for."""
RECORD = "export.json"
_BEGUN = "export.begun"
_MADE_BY = "pnp-ovss export"


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote.

    Attributes:
        images: with their masks.
        skipped: masks of background (and void) alone, left out because that was asked for.
        void: share of all pixels that are void because their confidence is below the floor.
        dropped: connected pieces that are void because they are too small or too unsure.
        splits: pictures in each; empty where there is no validation split.
        missing: pictures without a mask: quarantined, or of shards that failed.
        review: where pictures were chosen by decisions: how many of the run, and of each class, were accepted,
            rejected, and are open.
    """

    out: str
    to: str
    images: int
    skipped: int
    void: float
    dropped: int
    splits: dict[str, int]
    missing: int
    classes: tuple[str, ...]
    review: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        values = asdict(self)
        if self.review is None:
            del values["review"]
        return {"pictures": values.pop("images"), **values}


def export_run(
    url: str,
    to: str,
    out: str,
    floor: float | None = None,
    images: bool = True,
    skip_empty: bool = False,
    progress: Progress = silent,
    *,
    min_area: int = 0,
    min_confidence: float = 0.0,
    only: str | None = None,
    leave_out: str | None = None,
    review: str | None = None,
    instances: bool = False,
    val: float | None = None,
) -> ExportSummary:
    """Write all masks of a finished run, or of a labelled corpus, in another form.

    The record, `export.json`, is written last: a folder without one is not whole, and the same command makes it anew.

    Args:
        url: run folder, or output folder of a corpus: a path or any fsspec URL.
        to: a key of `FORMATS`.
        floor: pixels whose confidence in [0, 1] is below it become void (255; 65535 in masks of 16 bits).
        images: also write the pictures, where the format has a place for them.
        skip_empty: leave out masks without any class.
        min_area: connected pieces of a class with fewer pixels become void.
        min_confidence: so do those whose mean confidence in [0, 1] is below it.
        only: `accepted`, `rejected` or `open`, as the review of the run says, or a file of keys, one per line: no other
            pictures are written. A file of such a name is given with its folder: `./accepted`.
        leave_out: the same, of pictures that are not written.
        review: a file with the decisions; `report/review.json` of the run when None.
        instances: each connected piece is an object, not each class, where the format has objects.
        val: share in (0, 1) of pictures for a validation split, by the digests of their keys.

    Raises:
        UnknownNameError: no such format.
        UsageError: `val` is no share; confidence is asked for, and the run kept none; the format has no place for what
            is asked, or not for so many classes; the file of keys or the review cannot be read, or names pictures
            without a mask; the review is of another run.
        CorruptRunError: the folder holds no finished run.
        OutputError: the target holds something else, or cannot be written.
    """
    if val is not None and not 0 < val < 1:
        raise UsageError(f"the share of pictures for validation is between 0 and 1, not {val:g}")
    voids = floor is not None or bool(min_area or min_confidence)
    _check_takes(to, {"instances": instances, "val": val is not None, "void": voids})
    finished = open_finished(url)
    chosen = picked(finished, only, leave_out, review)
    choice = Choice(floor, min_area, min_confidence, chosen.keys, instances, val, chosen.without)
    if choice.by_confidence and not finished.confidence:
        raise UsageError(
            f"'{url}' kept no confidence, which is asked for here: run its command again with --confidence (only the "
            f"masks are made again)"
        )
    target = ExportFolder(out)
    writer = FORMATS.get(to)(target, finished, images)  # before anything is touched: it may not hold such masks
    with writing(out, "export"):
        _prepare(target, to)
        summary = replace(_write(finished, to, target, writer, choice, skip_empty, progress), review=chosen.review)
        asked = {"floor": floor, "min_area": min_area, "min_confidence": min_confidence, "only": only}
        asked |= {"instances": instances, "val": val}
        asked |= {name: file for name, file in (("except", leave_out), ("review_file", review)) if file is not None}
        record = {"made_by": _MADE_BY, "run": url, **asked, "model": finished.model}
        target.write_json(RECORD, {**summary.as_json(), **record})
        target.remove(_BEGUN)
    return summary


_ASKED = {
    "instances": "no single objects: leave out --instances",
    "val": "no splits: leave out --val",
    "void": "no void: leave out --confidence, --min-area and --min-confidence",
}


def _check_takes(to: str, asked: dict[str, bool]) -> None:
    """Before anything is read.

    Raises:
        UnknownNameError: no such format.
        UsageError: it has no place for what is asked.
    """
    make = FORMATS.get(to)
    takes = getattr(make, "takes", frozenset()) | ({"void"} if getattr(make, "has_void", True) else set())
    for option, wanted in asked.items():
        if wanted and option not in takes:
            raise UsageError(f"format '{to}' has {_ASKED[option]}")


def _write(
    finished: Finished,
    to: str,
    target: ExportFolder,
    writer: Writer,
    choice: Choice,
    skip_empty: bool,
    progress: Progress,
) -> ExportSummary:
    """All pictures, but not yet the record."""
    skipped = void = pixels = dropped = 0
    splits: dict[str, int] = dict.fromkeys(SPLITS, 0)
    with writer:
        for image in labelled_images(finished, choice):
            progress(1)
            void, pixels, dropped = void + image.below_floor, pixels + image.labels.size, dropped + image.dropped
            if skip_empty and not image.classes:
                skipped += 1
                continue
            writer.add(image)
            splits[image.split] += 1
    target.flush()
    share, number = void / pixels if pixels else 0.0, sum(splits.values())
    own = {} if choice.val is None else splits
    return ExportSummary(target.url, to, number, skipped, share, dropped, own, finished.missing, finished.classes)


def _prepare(target: ExportFolder, to: str) -> None:
    """Delete what an export of the same format wrote to a folder before.

    Raises:
        ForeignFilesError: it holds an export of another format, or files of it were changed.
    """
    before = target.read_json(_BEGUN) or target.read_json(RECORD)
    if isinstance(before, dict) and before.get("to") != to:
        raise ForeignFilesError(f"'{target.url}' holds no {to} export, but {before.get('to')}; choose another --out")
    target.check_unchanged()
    # First of all it says that it is not whole: what is killed here can be made again.
    target.write_json(_BEGUN, {"made_by": _MADE_BY, "to": to})
    target.clear(first=RECORD, keep=_BEGUN)
