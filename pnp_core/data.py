"""The records that pass between stages. Tasks exchange these references, never tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

IGNORE = 255
"""Label of pixels that belong to no class and are not scored (void), where labels have 8 bits."""
MAX_LABEL = 65_534
"""The greatest label of a class. Masks with a label over 254 have 16 bits, and their void is 65535."""


def label_type(greatest: int) -> np.dtype[Any]:
    """Type of masks whose classes have labels up to some one: 8 bits up to 254, 16 bits up to 65534.

    >>> label_type(254).name, label_type(255).name
    ('uint8', 'uint16')
    """
    return np.dtype(np.uint8 if greatest < IGNORE else np.uint16)


def void_of(labels: np.ndarray) -> int:
    """What pixels of no class have in a label map (H, W): 255 where it has 8 bits, 65535 where it has 16.

    >>> void_of(np.zeros((1, 1), np.uint8)), void_of(np.zeros((1, 1), np.uint16))
    (255, 65535)
    """
    return int(np.iinfo(labels.dtype).max)


@dataclass(frozen=True)
class Sample:
    """One picture as it travels in a shard.

    Attributes:
        key: unique name within the run, safe in paths: only letters, digits, `_` and `-`.
        image: the encoded picture, untouched.
        extension: of the encoded picture, without the dot.
        source: where the picture came from, for people.
        label_map: ground truth as PNG bytes, when there is any.
        classes: image-level labels (class ids), when known.
        fault: why there are no image bytes; the pipeline quarantines the sample with it.
        name: the picture's own name, to look it up in tables; empty when `source` is that.
        notes: what of its ground truth was left out, for people.
    """

    key: str
    image: bytes
    extension: str
    source: str
    label_map: bytes | None = None
    classes: tuple[int, ...] | None = None
    fault: str | None = None
    name: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShardRef:
    """One tar of the run folder, the unit of work, retry and resume."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ClassMaps:
    """What the salience stage keeps of one picture.

    Attributes:
        maps: (K, C, gh, gw) float32, pass x candidate class x patch grid; what they mean is the method's. Where `of`
            says what each is of there are as many as that says.
        classes: the C candidate class ids.
        itm: (C,) float32, match probability in [0, 1] of the class; None where the method has none.
        height, width: of the picture in image pixels, after EXIF rotation.
        scores: of each candidate in [0, 1], None where its source gives none; empty when unknown.
        chosen: how the candidates were chosen, for people.
        notes: what was done to the picture to read it, for people.
        of: class id of each map, 0 for background, where a class may have several; empty where each has one.
        parts: of a method that puts finished runs together their maps of the picture, each with its own K and grid; of
            one whose maps are on no grid what it has in their place. `maps` are then for people. Otherwise empty.
    """

    maps: np.ndarray
    classes: tuple[int, ...]
    itm: np.ndarray | None
    height: int
    width: int
    scores: tuple[float | None, ...] = ()
    chosen: str = ""
    notes: tuple[str, ...] = ()
    of: tuple[int, ...] = ()
    parts: tuple[ClassMaps, ...] = ()

    def by_class(self) -> ClassMaps:
        """For people: one map a class, the maximum over its own, from 0 up. What has one each is left as it is."""
        if not self.of:
            return self
        own = [self.maps[:, np.array(self.of) == label].max(axis=1) for label in self.classes]
        maps = np.stack(own, axis=1) if own else self.maps[:, :0]
        return replace(self, maps=maps - maps.min(axis=(0, 2, 3), keepdims=True, initial=np.inf), of=())


@dataclass(frozen=True)
class Quarantined:
    """A sample that could not be processed: which, where, why."""

    key: str
    source: str
    stage: str
    reason: str


@dataclass(frozen=True)
class StageResult:
    """What a stage did with one shard.

    Attributes:
        record_sha256: digest of the completion record, the input identity of the next stage.
        resumed: True when the record existed and nothing was computed.
        failed: the shard was given up, and all its pictures are set aside.
        mended: the file of an earlier run that was damaged, so that the shard was made again.
    """

    stage: str
    shard: str
    done: int
    quarantined: int
    record_sha256: str
    resumed: bool
    seconds: float = 0.0
    failed: bool = False
    mended: str = ""


@dataclass
class StageSummary:
    """Counts of one stage over all its shards, for people and `--json`."""

    shards: int = 0
    shards_resumed: int = 0
    images: int = 0
    images_resumed: int = 0
    quarantined: int = 0
    seconds: float = 0.0
    shards_failed: int = 0
    images_failed: int = 0
    shards_mended: int = 0
    """Made again, because a file of theirs was damaged."""

    def add(self, result: StageResult) -> None:
        """Count one shard in."""
        self.shards += 1
        self.images += result.done
        self.quarantined += result.quarantined
        self.seconds += result.seconds
        if result.failed:
            self.shards_failed += 1
            self.images_failed += result.quarantined
        self.shards_mended += bool(result.mended)
        if result.resumed:
            self.shards_resumed += 1
            self.images_resumed += result.done

    def __add__(self, other: StageSummary) -> StageSummary:
        """Of the same stage in another batch."""
        return StageSummary(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def images_per_second(self) -> float | None:
        """Rate of what was computed in this run; None when nothing was."""
        computed = self.images - self.images_resumed
        return computed / self.seconds if computed and self.seconds > 0 else None


@dataclass
class Summary:
    """What every flow has to say at its end."""

    out: str
    images: int = 0
    quarantined: int = 0
    stages: dict[str, StageSummary] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    """Why pictures were quarantined, most frequent first."""
    mended: list[str] = field(default_factory=list)
    """Files of an earlier run that were damaged, so that their shards were made again."""
    untracked: str = ""
    """Why the run could not be recorded in the store that it was to be recorded in."""

    def stages_json(self) -> dict[str, Any]:
        """Seconds and counts by stage."""
        return {
            "seconds": {name: round(s.seconds, 3) for name, s in self.stages.items()},
            "stages": {
                name: {**asdict(s), "images_per_second": s.images_per_second} for name, s in self.stages.items()
            },
        }


@dataclass
class RunSummary(Summary):
    """Everything a run that makes masks has to say at its end."""

    masks: str = ""
    labelled: int = 0
    resumed: int = 0
    failed: int = 0
    """Of the quarantined those whose shard was given up; the next run tries them again."""
    scores: dict[str, Any] = field(default_factory=dict)
    split_images: int | None = None
    """Pictures that the evaluated split officially has; None where nobody knows, or a class subset leaves some out."""

    @property
    def part(self) -> str:
        """How much of the split was scored; empty when that is all of it, or its size is unknown.

        >>> RunSummary("out", scores={"images_scored": 38}, split_images=1449).part
        '38 of 1449 pictures'
        """
        scored = self.scores.get("images_scored")
        if scored is None or self.split_images is None or scored >= self.split_images:
            return ""
        return f"{scored} of {self.split_images} pictures"

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        head = {k: getattr(self, k) for k in ("images", "labelled", "quarantined", "failed", "resumed", "out", "masks")}
        head |= {"split_images": self.split_images} if self.scores else {}
        return {**head, **self.stages_json(), "reasons": self.reasons, "mended": self.mended, **self.scores}


Progress = Callable[[int], None]
"""Called by a stage with the number of pictures just finished."""


def silent(_: int) -> None:
    """Report progress to nobody."""
