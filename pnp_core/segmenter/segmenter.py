"""Pictures to masks in memory, by the functions that the stages of a run call."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any, Literal, overload

import numpy as np

from pnp_core.config import OwnImagesConfig, PipelineConfig, laid_over, method_named, refuse_other_weights
from pnp_core.configuring import build
from pnp_core.data import ClassMaps, Quarantined, Sample, silent
from pnp_core.errors import ClassNameError, UnusableImage
from pnp_core.frozen import Config
from pnp_core.inputs.class_files import classes_of
from pnp_core.inputs.images import DecodedImage
from pnp_core.inputs.own_classes import AnyClass, OwnClass
from pnp_core.masks.label_map import LabelMap
from pnp_core.methods import Loaded, method_of
from pnp_core.methods.base import MethodConfig
from pnp_core.runs.plan import Plan, check_candidates, plan_label
from pnp_core.runs.preflight import check_own_images
from pnp_core.segmenter.pictures import GivenPicture, Picture, given_pictures
from pnp_core.segmenter.result import Segmentation
from pnp_core.stages.maps import extract_maps
from pnp_core.stages.masks import make_masks
from pnp_core.storage.settings import read_settings

_PARTS = ("method", "salience", "masks", "runtime")
"""Parts of a flow's configuration that say how a picture becomes a mask."""
_NOWHERE: dict[str, Any] = {"source": "", "out": "", "classes": ("to be given",)}
"""For the configuration of `label`, which is of a run: there is none, and classes are given with the pictures."""
Classes = Sequence[str | Mapping[str, Any] | OwnClass] | str | os.PathLike[str]
"""What pictures are asked about."""
_VOCABULARIES = 8
"""Lists of classes that stay open."""


class Segmenter:
    """A method with its weights loaded, ready for pictures and names of classes. Writes nothing, and needs no Prefect.

    Configured as `pnp-ovss label` is: without arguments the bundled photo model, and each picture is asked about the
    classes that the model itself matches with it. The masks are those of `label` byte for byte, where as many pictures
    are looked at together. Not to be called from two threads at a time.

    Args:
        weights: of PnP-OVSS `photo` or `tiny` (bundled), a local folder or a hub id; of methods on CLIP its name, with
            a tag as in `ViT-B-16:openai`. The method's own where none are given.
        method: `pnp-ovss`, `naclip`, `car` ... (docs/methods.md), or a mapping with its name and settings.
        preset: of PnP-OVSS where the configuration starts from: `authors`, `paper`, `tiny` or `photo`.
        config: what is laid over that: a YAML file (a path or URL, such as best.yaml), a mapping with the parts
            `method`, `salience`, `masks` and `runtime`, or the configuration of a flow, of which these parts count.
        candidates: which classes a picture is asked about: `itm` (those that the model matches), `vocabulary` (all),
            `clip`, `file`; or a mapping with settings (docs/candidates.md).
        device: `auto` (the first GPU, else the CPU), `cpu`, `cuda:1`, `mps` ...
        batch_size: pictures that are looked at together, of a list; or `auto`, as many as a GPU has room for.
        settings: of the method: `layer=7`, `head=9`, `backbone={"name": "albef"}`.

    Raises:
        UsageError: weights, method, preset or a setting do not exist or do not fit together.

    >>> from pnp_core.bundled import PACKAGE
    >>> segmenter = Segmenter("photo", device="cpu")
    >>> segmenter(PACKAGE / "_photographs" / "cat.jpg", ["cat", "car"]).asked.keys()
    dict_keys(['cat'])
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        *,
        method: str | Mapping[str, Any] | MethodConfig | None = None,
        preset: str | None = None,
        config: str | os.PathLike[str] | Mapping[str, Any] | PipelineConfig | None = None,
        candidates: str | Mapping[str, Any] | Config | None = None,
        device: str | None = None,
        batch_size: int | Literal["auto"] | None = None,
        **settings: Any,
    ) -> None:
        source = {"source": candidates} if isinstance(candidates, str) else _plain(candidates)
        runtime = {name: value for name, value in (("device", device), ("batch_size", batch_size)) if value is not None}
        given = laid_over(
            {"preset": preset} if preset else {},
            {"method": method if isinstance(method, str) else _plain(method)} if method else {},
            {"method": settings} if settings else {},
            {"salience": {"candidates": source}} if source else {},
            {"runtime": runtime} if runtime else {},
        )
        kept = laid_over(_values_of(config))
        if weights is not None:
            kind = method_named(laid_over(kept, given))
            given = laid_over(given, {"method": kind.of_weights(os.fspath(weights))})
        refuse_other_weights(_name_of(config), kept, given, prefix="")
        self._config = build(OwnImagesConfig, {**laid_over(kept, given), **_NOWHERE})
        check_candidates(self._config)
        own = self._config.method
        self._pinned = method_of(own).pin(own)
        method_of(own).warm(own, self._pinned, self._config.runtime.device)
        self._opened = lru_cache(maxsize=_VOCABULARIES)(self._open)

    def __repr__(self) -> str:
        """Method, weights and their size."""
        return f"Segmenter({self._config.method.describe().row})"

    @overload
    def __call__(self, images: Picture, classes: Classes, *, scores: bool = True) -> Segmentation: ...

    @overload
    def __call__(
        self, images: list[Any] | tuple[Any, ...], classes: Classes, *, scores: bool = True
    ) -> list[Segmentation]: ...

    def __call__(self, images: Any, classes: Any, *, scores: bool = True) -> Any:
        """The mask of a picture; of a list of pictures a list of masks.

        Args:
            images: a path or URL, a PIL image, an array (H, W, 3) of RGB or (H, W) of grey, uint8; or a list of them.
            classes: names of the labels 1, 2 ...; or a file of classes, `@CARD` for those of a dataset, or mappings
                with `name`, `prompts`, `id`, `colour`, `background` (docs/classes.md).
            scores: keep the probabilities of all classes, which take 4 bytes for each pixel and class asked about.

        Raises:
            ClassNameError: there are no classes, or one is empty, given twice, or cannot be read by the model.
            SourceError: an array of another shape or type, no picture at all, or a file that is missing.
            UnusableImage: a picture that cannot be decoded, or that nothing can be made of.
        """
        several = isinstance(images, list | tuple)
        # All are looked at before work begins on the first.
        pictures = list(given_pictures(images if several else [images]))
        made = list(self._masks(pictures, self._opened(_classes(classes)), scores))
        return made if several else made[0]

    def stream(self, images: Iterable[Picture], classes: Classes, *, scores: bool = False) -> Iterator[Segmentation]:
        """The masks of pictures that may be too many for memory, in order, as they are made.

        Some batches are read ahead and in memory at a time. Arguments and errors are those of a call; a picture that
        cannot be used ends it.
        """
        return self._masks(given_pictures(images), self._opened(_classes(classes)), scores)

    def _open(self, classes: tuple[AnyClass, ...]) -> tuple[Plan, Loaded]:
        """The jobs of a list of classes, and the method ready for them."""
        plan = plan_label(self._config.model_copy(update={"classes": classes}), self._pinned)
        for remark in check_own_images(plan):
            warnings.warn(remark, stacklevel=3)
        return plan, plan.salience.load()

    def _masks(
        self, pictures: Iterable[GivenPicture], opened: tuple[Plan, Loaded], soft: bool
    ) -> Iterator[Segmentation]:
        plan, loaded = opened
        work = _Work(plan, soft)
        maps = extract_maps(work.samples(pictures), plan.salience, silent, loaded, work.decode)
        batches = make_masks(_usable(maps), plan.masks, work.pixels, work.result, soft)
        return chain.from_iterable(batches)


@dataclass
class _Work:
    """The pictures that are being worked on, by key: as they were given, and their pixels until there is a mask."""

    plan: Plan
    soft: bool
    _given: dict[str, GivenPicture] = field(default_factory=dict)
    _decoded: dict[str, np.ndarray] = field(default_factory=dict)

    def samples(self, pictures: Iterable[GivenPicture]) -> Iterator[Sample]:
        """What stands for them in the stages."""
        for picture in pictures:
            self._given[picture.sample.key] = picture
            yield picture.sample

    def decode(self, sample: Sample) -> DecodedImage:
        """For the stage of the maps; the pixels are kept."""
        image = self._given.pop(sample.key).decode(self.plan.masks.max_pixels)
        self._decoded[sample.key] = image.pixels
        return image

    def pixels(self, sample: Sample) -> np.ndarray:
        """For the stage of the masks."""
        return self._decoded[sample.key]

    def result(self, sample: Sample, maps: ClassMaps, label_map: LabelMap) -> Segmentation:
        """A finished picture, which is no more kept here."""
        names, job = self.plan.masks.class_names, self.plan.masks
        matches = (None,) * len(maps.classes) if maps.itm is None else tuple(map(float, maps.itm))
        chosen = maps.scores or (None,) * len(maps.classes)
        return Segmentation(
            labels=label_map.labels.astype(job.label_type, copy=False),
            classes=tuple(job.named.values()),
            ids=tuple(job.named),
            confidence=label_map.confidence,
            asked={
                names[label - 1]: match if score is None else score
                for label, score, match in zip(maps.classes, chosen, matches, strict=True)
            },
            notes=maps.notes,
            image=self._decoded.pop(sample.key),
            palette=job.colours,
            soft=label_map.soft,
        )


def _usable(
    results: Iterable[tuple[Sample, ClassMaps] | Quarantined],
) -> Iterator[tuple[Sample, ClassMaps]]:
    """What a run would set aside ends a call."""
    for result in results:
        if isinstance(result, Quarantined):
            raise UnusableImage(f"'{result.source}': {result.reason}")
        yield result


def _classes(given: Any) -> tuple[AnyClass, ...]:
    """Names, mappings, or a file."""
    listed = isinstance(given, Iterable) and not isinstance(given, str | Mapping | os.PathLike)
    classes = classes_of(tuple(given) if listed else given)
    if not isinstance(classes, tuple) or not all(isinstance(one, AnyClass) for one in classes):
        raise ClassNameError(f"classes are a list of names, such as ['cat', 'traffic light'], or a file, not {given!r}")
    return classes


def _plain(values: Any) -> dict[str, Any]:
    return values.model_dump() if isinstance(values, Config) else dict(values or {})


def _values_of(config: Any) -> dict[str, Any]:
    """Unchecked values of whatever says how a picture becomes a mask."""
    if isinstance(config, PipelineConfig):
        return {"preset": config.preset, **{part: getattr(config, part).model_dump() for part in _PARTS}}
    return read_settings(os.fspath(config)) if isinstance(config, str | os.PathLike) else _plain(config)


def _name_of(config: Any) -> str:
    return os.fspath(config) if isinstance(config, str | os.PathLike) else "config"
