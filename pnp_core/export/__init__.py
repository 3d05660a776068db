"""Masks of a run in the form that training code reads. One module per format; `FORMATS` lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pnp_core.data import Progress, silent
from pnp_core.errors import ForeignFilesError, UsageError
from pnp_core.export.base import Writer
from pnp_core.export.folder import ExportFolder
from pnp_core.export.labelled import Finished, labelled_images, open_finished
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
    },
)
"""(target, masks, whether the images are written too) -> writer. One that cannot write all masks has `check`, a
function of them that refuses before anything is written."""
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
        missing: pictures without a mask: quarantined, or of shards that failed.
    """

    out: str
    to: str
    images: int
    skipped: int
    void: float
    missing: int
    classes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        values = asdict(self)
        return {"pictures": values.pop("images"), **values}


def export_run(
    url: str,
    to: str,
    out: str,
    floor: float | None = None,
    images: bool = True,
    skip_empty: bool = False,
    progress: Progress = silent,
) -> ExportSummary:
    """Write all masks of a finished run, or of a labelled corpus, in another form.

    The record, `export.json`, is written last: a folder without one is not whole, and the same command makes it anew.

    Args:
        url: run folder, or output folder of a corpus: a path or any fsspec URL.
        to: a key of `FORMATS`.
        floor: pixels whose confidence in [0, 1] is below it become 255 (void).
        images: also write the pictures, where the format has a place for them.
        skip_empty: leave out masks without any class.

    Raises:
        UnknownNameError: no such format.
        UsageError: a floor, and the run kept no confidence; the format has no place for such masks.
        CorruptRunError: the folder holds no finished run.
        OutputError: the target holds something else, or cannot be written.
    """
    writer = FORMATS.get(to)  # before anything is read
    finished = open_finished(url)
    if check := getattr(writer, "check", None):
        check(finished)
    if floor is not None and not finished.confidence:
        raise UsageError(
            f"'{url}' kept no confidence, which a floor needs: run the same command again with --confidence (only the "
            f"masks are made again)"
        )
    with writing(out, "export"):
        summary, target = _write(finished, to, out, floor, images, skip_empty, progress)
        record = {"made_by": _MADE_BY, "run": url, "floor": floor, "model": finished.model}
        target.write_json(RECORD, {**summary.as_json(), **record})
        target.remove(_BEGUN)
    return summary


def _write(
    finished: Finished, to: str, out: str, floor: float | None, images: bool, skip_empty: bool, progress: Progress
) -> tuple[ExportSummary, ExportFolder]:
    """All pictures, but not yet the record."""
    target = _target(out, to)
    number = skipped = void = pixels = 0
    with FORMATS.get(to)(target, finished, images) as writer:
        for image in labelled_images(finished, floor):
            progress(1)
            void, pixels = void + image.below_floor, pixels + image.labels.size
            if skip_empty and not image.classes:
                skipped += 1
                continue
            writer.add(image)
            number += 1
    target.flush()
    share = void / pixels if pixels else 0.0
    return ExportSummary(out, to, number, skipped, share, finished.missing, finished.classes), target


def _target(out: str, to: str) -> ExportFolder:
    """A folder without what an export of the same format wrote to it before.

    Raises:
        ForeignFilesError: it holds an export of another format, or files of it were changed.
    """
    target = ExportFolder(out)
    before = target.read_json(_BEGUN) or target.read_json(RECORD)
    if isinstance(before, dict) and before.get("to") != to:
        raise ForeignFilesError(f"'{out}' holds no {to} export, but {before.get('to')}; choose another --out")
    target.check_unchanged()
    # First of all it says that it is not whole: what is killed here can be made again.
    target.write_json(_BEGUN, {"made_by": _MADE_BY, "to": to})
    target.clear(first=RECORD, keep=_BEGUN)
    return target
