"""What a run will cost: time, memory and disk, from a few of its pictures that go through its own stages."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from types import TracebackType
from typing import Any, TypeVar

import psutil

from pnp_core.config import CorpusConfig, EvalConfig, LabelConfig, PipelineConfig
from pnp_core.corpus import Corpus
from pnp_core.data import Sample, ShardRef, StageResult
from pnp_core.errors import CheckpointError, UsageError
from pnp_core.inputs.cards import load_card
from pnp_core.inputs.sources import draw
from pnp_core.runs.plan import Plan, class_subset, open_images, open_split, plan_eval, plan_label
from pnp_core.runs.preflight import check_own_images, ignored_files, own_remarks, remarks
from pnp_core.stages.fitting import batch_size
from pnp_core.stages.maps import extract_shard
from pnp_core.stages.masks import export_png, mask_shard
from pnp_core.stages.scores import score_shard
from pnp_core.storage.completion import StageFolder
from pnp_core.storage.files import Files
from pnp_core.storage.ownership import check_ours
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import write_shards

TRIED = 4
"""Pictures that are tried: the first warms up, the others are measured."""
_EVERY = 0.01
"""Seconds between two looks at the memory."""


@dataclass(frozen=True)
class Measured:
    """What the pictures that were tried took.

    Attributes:
        tried: pictures.
        labelled: of them, those that were not quarantined.
        seconds: per picture, by stage.
        disk_bytes: per picture, by folder of the run folder (of stages and shards).
        one, several: memory in bytes at its highest, of a batch of 1 picture and of a batch of `batch`.
    """

    tried: int
    labelled: int
    seconds: dict[str, float]
    disk_bytes: dict[str, float]
    one: int
    several: int
    batch: int

    def memory(self, batch: int) -> int:
        """Bytes for a batch, by the line through both measurements.

        >>> Measured(4, 4, {}, {}, one=1000, several=1200, batch=3).memory(16)
        2500
        """
        slope = max(0, self.several - self.one) / max(1, self.batch - 1)
        return round(self.several + slope * max(0, batch - self.batch))


@dataclass(frozen=True)
class RunCost:
    """What a run is, and what is left of it will take.

    Attributes:
        pictures: in all; with a class subset those that may have one of the classes.
        done: of them, pictures that have masks of these settings already (`tune`: maps).
        settings: that are evaluated; 1 but for `ablate`.
        problem: why the weights are not at hand, so that nothing could be tried; None when they are.
        device: where the model runs.
        tried: pictures that were tried.
        labelled: of them, those that were not quarantined, which the estimate is from.
        seconds: estimate, by stage, `start` (the model is loaded) first; empty where nothing could be tried.
        memory_bytes: estimate of the highest use: of the GPU where the model is on one, else of the process.
        disk_bytes: estimate of what is added to the output folder.
        warnings: what the run itself would say before it begins; where weights are not at hand, none of the model.
    """

    out: str
    pictures: int
    done: int
    classes: int
    method: str
    model: str
    weights: str
    candidates: str
    device: str
    batch_size: int
    settings: int = 1
    problem: str | None = None
    tried: int = 0
    labelled: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def total_seconds(self) -> float | None:
        """All stages one after the other; None where nothing was tried, or all of it quarantined."""
        return sum(self.seconds.values()) if self.labelled else None

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        values = asdict(self)
        values["seconds"] = {name: round(seconds, 3) for name, seconds in self.seconds.items()}
        return {**values, "total_seconds": self.total_seconds, "weights_at_hand": self.problem is None}


@contextmanager
def nothing_downloaded() -> Iterator[None]:
    """Weights that are not at hand are said to be so, and not fetched, while the block runs."""
    name = "HF_HUB_OFFLINE"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class _Peak:
    """The most memory in use while a block runs: of the GPU where the model is on one, else of this process."""

    def __init__(self, device: str) -> None:
        import torch

        from pnp_core.devices import resolve_device

        self._device = resolve_device(device)
        self._torch, self._gpu = torch, self._device.type == "cuda"
        self._process, self._end, self.bytes = psutil.Process(), Event(), 0

    def __enter__(self) -> _Peak:
        if self._gpu:
            self._torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._watch = Thread(target=self._look, daemon=True)
            self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._gpu:
            self.bytes = self._torch.cuda.max_memory_reserved(self._device)
            return
        self._end.set()
        self._watch.join()

    def _look(self) -> None:
        while True:
            self.bytes = max(self.bytes, self._process.memory_info().rss)
            if self._end.wait(_EVERY):
                return


def started(plan: Plan) -> float:
    """Seconds until the model of a run is loaded; next to none where this process has it already."""
    start = time.perf_counter()
    plan.salience.load()
    return time.perf_counter() - start


def measure(plan: Plan, samples: Sequence[Sample]) -> Measured:
    """Send a few pictures through the stages of a run, in a folder of their own that is gone afterwards.

    Raises:
        UsageError: there is no picture.
        PnpError: as the stages.
    """
    if not samples:
        raise UsageError("there is no picture to try, so that nothing can be said of time, memory and disk")
    with TemporaryDirectory(prefix="pnp-ovss-") as folder:
        trial = plan.at(folder)
        started(trial)  # beforehand: it is not for each picture
        shards = write_shards(RunFolder(folder), iter(samples), iter([1, len(samples)]), "a trial", "a trial")
        peaks, seconds, labelled = [], {}, 0
        for shard in shards:  # the last one's times count: it is warm
            with _Peak(plan.salience.runtime.device) as peak:
                seconds, done = _run(trial, shard)
            peaks.append(peak.bytes)
            labelled += done
        last = shards[-1].samples
        each = {name: taken / last for name, taken in seconds.items()}
        return Measured(len(samples), labelled, each, _sizes(Path(folder), len(samples)), peaks[0], peaks[-1], last)


def _sizes(folder: Path, pictures: int) -> dict[str, float]:
    """Bytes per picture of the files in each folder."""
    sizes: dict[str, float] = {}
    for file in folder.glob("*/**/*"):
        if file.is_file():
            name = file.relative_to(folder).parts[0]
            sizes[name] = sizes.get(name, 0) + file.stat().st_size / pictures
    return sizes


def _run(plan: Plan, shard: ShardRef) -> tuple[dict[str, float], int]:
    """Seconds by stage, and the pictures that have masks."""
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], StageResult]) -> StageResult:
        start = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - start
        return result

    salience = timed("salience", lambda: extract_shard(plan.salience, shard))
    masks = timed("masks", lambda: mask_shard(plan.masks, shard, salience))
    if plan.png:
        timed("png", lambda: export_png(plan.masks, shard, masks))
    if score := plan.score:
        timed("scores", lambda: score_shard(score, shard, masks))
    return seconds, masks.done


def pictures_done(folder: StageFolder) -> int:
    """Pictures that have been through a stage, by its completion records; whether files are whole is not looked at."""
    records = map(folder.record, folder.recorded())
    return sum(record.done + record.quarantined for record in records if record)


def label_cost(config: LabelConfig) -> RunCost:
    """What `label` will take; nothing is written.

    Raises:
        PnpError: as `plan_label`; or there are no pictures, or the output folder is somebody else's.
    """
    check_ours(Files(config.out), "run")
    source = open_images(config)
    number, samples = draw(source, TRIED)
    cost = _cost(config, lambda: [plan_label(config)], number, len(config.classes), samples)
    return replace(cost, warnings=(*cost.warnings, *ignored_files(source)))


def corpus_cost(config: CorpusConfig) -> RunCost:
    """What `label-corpus` will take for what is new or changed; nothing is written.

    Raises:
        PnpError: as `plan_label`; or there are no pictures any more, or the output folder is another corpus'.
    """
    check_ours(Files(config.out), "corpus")
    with nothing_downloaded():
        planned, problem = planned_or_why(lambda: plan_label(config))
    if planned is None:
        return RunCost(pictures=0, done=0, classes=len(config.classes), problem=problem, **run_facts(config))
    corpus = Corpus(config, planned)
    number, samples = corpus.draw(TRIED)
    batch = planned.at(corpus.batch(corpus.number).url)
    return _cost(config, lambda: [batch], number, len(config.classes), samples)


def eval_cost(config: EvalConfig, settings: Sequence[EvalConfig] | None = None) -> RunCost:
    """What `eval` will take, or `ablate` for some settings; nothing is written.

    Args:
        config: what is tried.
        settings: on the same pictures, each as dear as what is tried; that alone when None.

    Raises:
        PnpError: as `plan_eval`; or there are no pictures, or the output folder is somebody else's.
    """
    check_ours(Files(config.out), "run")
    split = open_split(config)
    number = min(config.limit or len(split), len(split)) if config.data else config.limit or len(split)
    samples = list(islice(split.shuffled(0).samples(), min(TRIED, number)))
    card = load_card(config.dataset)
    classes = len(class_subset(config, card) or card.classes)
    wanted = [config] if settings is None else settings
    return _cost(config, lambda: [plan_eval(one) for one in wanted], number, classes, samples)


Planned = TypeVar("Planned")


def planned_or_why(plan: Callable[[], Planned]) -> tuple[Planned | None, str | None]:
    """The plan, or why the weights are not at hand."""
    try:
        return plan(), None
    except CheckpointError as error:
        return None, str(error)


def _cost(
    config: PipelineConfig, plan: Callable[[], list[Plan]], number: int, classes: int, samples: list[Sample]
) -> RunCost:
    facts = {"pictures": number, "classes": classes, **run_facts(config)}
    with nothing_downloaded():
        plans, problem = planned_or_why(plan)
        if plans is None:
            return RunCost(done=0, problem=problem, **facts)
        left = {
            "salience": _left(number, [one.salience.folder for one in plans]),
            "masks": _left(number, [one.masks.folder for one in plans]),
        }
        done = number - left["masks"] if len(plans) == 1 else 0
        facts |= {"settings": len(plans), "done": done}
        if not number or not left["masks"]:
            said = remarks(plans[0].salience) if plans[0].score else own_remarks(plans[0])
            return RunCost(memory_bytes=0, disk_bytes=0, warnings=tuple(said), **facts)
        start = started(plans[0])
        warnings = remarks(plans[0].salience) if plans[0].score else check_own_images(plans[0])
        measured = measure(plans[0], samples)
    facts |= {"tried": measured.tried, "labelled": measured.labelled, "warnings": tuple(warnings)}
    if not measured.labelled:
        return RunCost(**facts)
    new_shards = 0 if RunFolder(plans[0].salience.out).exists("shards") else number
    kept = {name: each * left.get(name, new_shards) for name, each in measured.disk_bytes.items()}
    stages = {name: each * left.get(name, left["masks"]) for name, each in measured.seconds.items()}
    return RunCost(
        seconds={"start": start, **stages},
        memory_bytes=measured.memory(min(number, batch_size(config.runtime))),
        disk_bytes=round(sum(kept.values())),
        **facts,
    )


def _left(number: int, folders: Sequence[StageFolder]) -> int:
    """Pictures that are still to go through a stage, of all settings that differ in it."""
    by_name = {folder.fingerprint: folder for folder in folders}
    return sum(max(0, number - pictures_done(folder)) for folder in by_name.values())


def run_facts(config: PipelineConfig) -> dict[str, Any]:
    """What a run is, for a `RunCost`."""
    from pnp_core.devices import resolve_device

    described = config.method.describe()
    return {
        "out": config.out,
        "method": config.method.name,
        "model": described.model,
        "weights": described.weights,
        "candidates": config.salience.candidates.source,
        "device": str(resolve_device(config.runtime.device)),
        "batch_size": batch_size(config.runtime),
    }
