"""Soft maps: how probable each class is at every pixel, in 8 bits."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any

import numpy as np
from pydantic import ValidationError

from pnp_core.data import ClassMaps
from pnp_core.errors import CorruptRunError
from pnp_core.export.base import upright_jpeg
from pnp_core.export.labelled import Finished, Labelled, Part
from pnp_core.inputs.images import decode_image
from pnp_core.masks.label_map import Decide, soft_maps
from pnp_core.masks.refine import Refiner
from pnp_core.runs.record import RunRecord, read_record
from pnp_core.stages.masks import MaskJob
from pnp_core.storage.class_maps import STAGE as SALIENCE
from pnp_core.storage.class_maps import read_class_maps
from pnp_core.storage.completion import StageFolder
from pnp_core.storage.run_folder import RunFolder


@dataclass(frozen=True)
class _Maker:
    """What made the masks of a run, ready to be asked again."""

    job: MaskJob
    decide: Decide
    refine: Refiner


class SoftMaps:
    """`scores/NAME.npz` (`labels` (C,) int32, `scores` (C, H, W) uint8), `index.csv`, `classes.csv`.

    A mask is the label with the greatest score at every pixel; they are computed again from the stored maps, as the
    masks were. Label 0 is background.
    """

    has_void = False

    def __init__(self, out: RunFolder, finished: Finished, images: bool) -> None:
        self._out, self._images = out, images
        self._classes = [(label, name) for label, (name, _) in finished.named.items()]
        self._makers: dict[tuple[str, str], _Maker] = {}
        self._maps = lru_cache(maxsize=1)(_stored_maps)
        for part in finished.parts:  # before anything is deleted
            self._maker(part)

    def __enter__(self) -> SoftMaps:
        self._stream = self._out.stream("index.csv")
        self._index = io.TextIOWrapper(self._stream.__enter__(), encoding="utf-8", newline="")
        self._rows = csv.writer(self._index, lineterminator="\n")
        self._rows.writerow(["name", "source", "height", "width", "labels"])
        return self

    def _maker(self, part: Part) -> _Maker:
        place = (part.masks.run.url, part.masks.fingerprint)
        if place not in self._makers:
            job = mask_job(part.masks)
            self._makers[place] = _Maker(job, job.decide, job.open_refiner())
        return self._makers[place]

    def add(self, image: Labelled) -> None:
        """Write one."""
        maker = self._maker(image.part)
        run, job = image.part.masks.run, maker.job
        maps = self._maps(run.url, job.salience_fingerprint, image.part.shard.name)[image.sample.key]
        pixels = decode_image(image.sample.image, job.max_pixels).pixels
        labels, scores = soft_maps(maps, pixels, maker.decide, maker.refine, job.config.max_side)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, labels=np.array(labels, np.int32), scores=scores)
        self._out.write(f"scores/{image.name}.npz", buffer.getvalue())
        if self._images:
            self._out.write(f"pictures/{image.name}.jpg", upright_jpeg(image.name, image.sample.image))
        self._rows.writerow([image.name, image.source, *image.labels.shape, " ".join(map(str, labels))])

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._index.flush()
        self._index.detach()
        self._stream.__exit__(kind, value, trace)
        if kind is None:
            buffer = io.StringIO()
            rows = csv.writer(buffer, lineterminator="\n")
            rows.writerows([["label", "name"], *self._classes])
            self._out.write("classes.csv", buffer.getvalue().encode())


def _stored_maps(url: str, salience: str, shard: str) -> dict[str, ClassMaps]:
    return read_class_maps(StageFolder(RunFolder(url), SALIENCE, salience), shard)


def mask_job(masks: StageFolder) -> MaskJob:
    """The job that made some masks, from the record of their run.

    Raises:
        CorruptRunError: the record is missing, or of other masks.
    """
    run = masks.run
    record = read_record(run)
    if record is None:
        raise CorruptRunError(f"'{run.url}' has no record of what made its masks; run its command again")
    try:
        jobs = list(_possible_jobs(run, record))
    except ValidationError as error:
        fault = error.errors()[0]["msg"]
        raise CorruptRunError(f"the masks in '{run.url}' were made by another version ({fault})") from error
    for job in jobs:
        if job.fingerprint == masks.fingerprint:  # of all that they depend on
            return job
    raise CorruptRunError(
        f"the masks in '{run.url}' cannot be made again from its record: it is of other masks, or of another version; "
        f"run its command again"
    )


def _possible_jobs(run: RunFolder, record: RunRecord) -> list[MaskJob]:
    """The record keeps what was asked for; a background rule may have been the dataset card's, and so may colours."""
    config: dict[str, Any] = record.config.model_dump()
    rule = config["masks"].get("background", "auto")
    rules = ("always", "few", "never") if rule == "auto" else (rule,)
    runtime = {**config.get("runtime", {}), "device": "auto"}
    values = {
        "out": run.url,
        "method": config.get("method"),
        "runtime": runtime,
        "max_pixels": config.get("salience", {}).get("max_pixels"),
        "class_names": record.classes,
        "ids": record.ids,
        "model": "",
        "salience_fingerprint": record.fingerprints.salience,
    }
    return [
        MaskJob.model_validate({**values, "palette": palette, "config": {**config["masks"], "background": one}})
        for one in rules
        for palette in (None, record.palette)
    ]
