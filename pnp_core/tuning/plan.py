"""From the configuration of `tune` to the jobs of its stages and the searches of its groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice, repeat
from typing import Any, Literal

import numpy as np

from pnp_core.data import Sample, ShardRef
from pnp_core.errors import DatasetError, UnknownNameError, UsageError
from pnp_core.inputs.cards import DatasetCard, load_card
from pnp_core.inputs.own_classes import OwnClass, vocabulary_of
from pnp_core.inputs.readers import Dataset, get_split, has_boxes, open_dataset, resolve_card
from pnp_core.inputs.sources import Source, draw, open_source
from pnp_core.masks.config import MaskConfig
from pnp_core.methods.pnp.backbones import locate_checkpoint
from pnp_core.methods.pnp.config import PnpConfig
from pnp_core.runs.plan import askable_labels, check_scored, class_subset
from pnp_core.runs.preflight import ignored_files, remarks
from pnp_core.stages.config import RuntimeConfig
from pnp_core.stages.maps import SalienceJob
from pnp_core.storage.ownership import check_ours, check_writable
from pnp_core.storage.run_folder import RunFolder, fingerprint
from pnp_core.storage.shards import read_index, write_shards
from pnp_core.tuning.cache import ImagesJob, MapsJob
from pnp_core.tuning.config import TuneConfig
from pnp_core.tuning.judge import judge_revision, judge_side, load_onlooker
from pnp_core.tuning.optimizer import GRID, optimizer_name
from pnp_core.tuning.reward import REWARD_VERSION, REWARDS
from pnp_core.tuning.search import TRIALS_PER_GROUP
from pnp_core.tuning.space import AnySpace
from pnp_core.tuning.stored import StoredMaps
from pnp_core.tuning.subject import Subject

SEARCH_VERSION = 1
"""Goes up when the same seed gives other trials."""


@dataclass(frozen=True)
class Group:
    """One group of neighbouring layers, or all there is to choose from where there are none, searched by itself."""

    number: int
    space: AnySpace[Any]
    trials: int


@dataclass(frozen=True)
class TunePlan:
    """The jobs of a tuning run.

    Attributes:
        vocabulary: labels that the reward's softmax runs over: all, also where a class subset is tuned for.
        judge_revision: names the judge's weights.
    """

    config: TuneConfig
    card: DatasetCard
    maps: Subject
    images: ImagesJob
    groups: tuple[Group, ...]
    optimizer: str
    vocabulary: tuple[int, ...]
    judge_revision: str

    @property
    def run(self) -> RunFolder:
        """The run folder."""
        return RunFolder(self.config.out)

    def reward_folder(self, shards: list[ShardRef]) -> str:
        """Where trials lie whose rewards can be told apart by their settings alone: named by all that enters them."""
        reward = self.config.reward
        parts: list[Any] = [REWARD_VERSION, self.images.folder.fingerprint, [shard.sha256 for shard in shards]]
        parts += [reward.kind, reward.clip.template, reward.batch_size, self.judge_revision]
        parts += self.maps.reward_facts
        return f"tuning/{fingerprint(*parts)}"

    def search_folder(self, shards: list[ShardRef]) -> str:
        """Where the trials of this search lie: named by all that decides their sequence."""
        library = version("gradient-free-optimizers")
        spaces = [(repr(group.space), group.trials) for group in self.groups]
        name = fingerprint(SEARCH_VERSION, library, self.optimizer, self.config.search.seed, spaces)
        return f"{self.reward_folder(shards)}/{name}"

    def log_file(self, shards: list[ShardRef], group: Group) -> str:
        """Log of a group's trials, relative to the run folder."""
        return f"{self.search_folder(shards)}/group-{group.number}.parquet"


def _own_images(config: TuneConfig) -> bool:
    return bool(config.classes)


def _resolved_card(config: TuneConfig) -> DatasetCard:
    card = load_card(config.dataset)
    if not _own_images(config):
        return resolve_card(card, config.data)
    if config.data is None:
        raise UsageError("say where your pictures are with --data: anything that `label` takes")
    if query := next((one.name for one in config.classes if isinstance(one, OwnClass) and one.background), None):
        raise UsageError(
            f"tune rewards what a judge sees of each class, and '{query}' is a background query: leave it out"
        )
    own = vocabulary_of(config.classes)
    if several := next((name for name, asked in zip(own.names, own.prompts, strict=True) if len(asked) > 1), None):
        raise UsageError(f"tune asks about each class with one prompt, and '{several}' has several: leave one")
    return card.with_classes(own.entries)


def resolved_masks(config: TuneConfig, card: DatasetCard) -> MaskConfig:
    """The masks stage's configuration, the background rule resolved."""
    rule = card.background_rule if config.masks.background == "auto" else config.masks.background
    return config.masks.model_copy(update={"background": rule})


def _subject(config: TuneConfig, card: DatasetCard, vocabulary: tuple[int, ...]) -> Subject:
    """The maps to tune on: of all layers and heads of PnP-OVSS, the usual ones of other methods."""
    parts = (config.out, config.method, config.salience, config.runtime, card, vocabulary)
    if not isinstance(config.method, PnpConfig):
        return StoredMaps(salience=SalienceJob.create(*parts), method=config.method, masks=resolved_masks(config, card))
    checkpoint = locate_checkpoint(config.method.backbone)  # layer and head of the preset may not even exist in it
    return MapsJob.create(SalienceJob.create(*parts, checkpoint), config.method, checkpoint, config.space.layers)


def _groups(config: TuneConfig, space: AnySpace[Any], optimizer: str) -> tuple[Group, ...]:
    """Layer groups, the trials spread evenly over them."""
    spaces = space.groups(config.search.groups)
    total = config.search.trials or TRIALS_PER_GROUP * config.search.groups
    if optimizer == GRID and config.search.trials is None:
        return tuple(Group(i, part, len(part)) for i, part in enumerate(spaces))
    if total < len(spaces):
        raise UsageError(f"{total} trials are too few for {len(spaces)} groups of layers; one each at least")
    shares = [len(part) for part in np.array_split(np.arange(total), len(spaces))]
    # A grid that was gone through has nothing more to offer.
    most = [len(part) if optimizer == GRID else total for part in spaces]
    return tuple(Group(i, part, min(n, m)) for i, (part, n, m) in enumerate(zip(spaces, shares, most, strict=True)))


def plan_tune(config: TuneConfig) -> TunePlan:
    """The jobs of a `tune` run.

    Raises:
        PnpError: the dataset, a class, backbone, checkpoint, layer, head, judge or optimizer does not exist or fit.
    """
    optimizer = optimizer_name(config.search.optimizer)
    REWARDS.get(config.reward.kind)
    card = _resolved_card(config)
    forms = [form.name for form in card.ground_truth]
    if config.ground_truth not in (None, *forms):
        raise UnknownNameError(f"ground truth of dataset {card.name}", str(config.ground_truth), forms)
    if _own_images(config) and config.salience.candidates.source == "labels":
        raise UsageError("pictures of your own have no image-level labels; use --candidates itm, clip or file")
    if not _own_images(config) and config.compare.masks != "off":
        check_scored(card)
    everything = tuple(range(1, len(card.classes) + 1))
    vocabulary = askable_labels(config, card, class_subset(config, card))
    maps = _subject(config, card, vocabulary)
    groups = _groups(config, maps.space(config.space), optimizer)
    judged = everything
    if config.reward.judge == "match":  # it is asked about the names that it knows
        judged = askable_labels(config, card, None)
    if len(judged) < 2:
        raise UsageError("tuning needs two class names or more, for a judge to tell apart; add what else may be there")
    revision = judge_revision(config, maps.salience.pinned)  # first: it says what is wrong with a judge
    images = ImagesJob(maps=maps, size=judge_side(config))
    return TunePlan(config, card, maps, images, groups, optimizer, judged, revision)


def _label_source(config: TuneConfig, card: DatasetCard) -> Literal["masks", "boxes", "none"]:
    """Where the classes of a picture come from; nothing is opened that is not needed."""
    if config.salience.candidates.source != "labels":
        return "none"
    if config.image_labels or card.boxes is None:
        return config.image_labels or "masks"
    split, _ = get_split(card, config.split or card.tuning_split)
    return "boxes" if has_boxes(card, config.data or "", split) else "masks"


def _reads_masks(config: TuneConfig, card: DatasetCard) -> bool:
    """Whether the classes of a picture can only be had from its mask."""
    return not card.drawn and _label_source(config, card) == "masks"


def tuning_dataset(config: TuneConfig) -> Dataset:
    """The split to tune on in a random order, by the search's seed; masks are not opened unless they name the classes.

    Raises:
        PnpError: no such split or class, or files are missing.
    """
    card = _resolved_card(config)
    split, _ = get_split(card, config.split or card.tuning_split)
    try:
        dataset = open_dataset(
            card,
            config.data,
            split,
            config.ground_truth,
            _label_source(config, card),
            class_subset(config, card),
            truth=_reads_masks(config, card),
        )
    except DatasetError as error:
        if config.split is not None:
            raise
        others = ", ".join(name for name in card.splits if name != split) or "none"
        raise DatasetError(f"{error} (tuning takes split {split} unless told otherwise; others: {others})") from error
    return dataset.shuffled(config.search.seed)


def _without_masks(samples: Iterator[Sample]) -> Iterator[Sample]:
    return (replace(sample, label_map=None) for sample in samples)


def check_tune(config: TuneConfig) -> list[str]:
    """Find what is wrong with a run before anything is started.

    Returns:
        Warnings for the user.

    Raises:
        PnpError: as `plan_tune`; or files are missing, a class name cannot be read by the text encoder, or the run
            folder cannot be written.
    """
    plan = plan_tune(config)
    check_ours(plan.run, "run")
    warnings = []
    if _own_images(config):
        warnings += ignored_files(_open_source(config))
    else:
        tuning_dataset(config)
    job = plan.maps.salience
    plan.maps.load().check(job.vocabulary)
    judged = [plan.card.captions[label - 1] for label in plan.vocabulary]
    load_onlooker(config, job.pinned, judged, config.runtime)
    warnings += remarks(job)
    check_writable(config.out, "run")
    return warnings


def _open_source(config: TuneConfig) -> Source:
    return open_source(
        config.data or "",
        config.out,
        config.image_column,
        config.follow_links,
        config.exclude,
        config.fetch_seconds,
    )


def tuning_images(config: TuneConfig) -> int:
    """Number of pictures to tune on.

    Raises:
        PnpError: as `tuning_dataset`; or there are no pictures.
    """
    if _own_images(config):
        there, _ = draw(_open_source(config), 0)
    else:
        there = len(tuning_dataset(config))
    return min(config.images, there)


def shard_tuning(config: TuneConfig) -> list[ShardRef]:
    """Write the pictures to tune on as shards without masks, or reuse the ones that are there.

    Raises:
        OutputError: the run folder belongs to another dataset or cannot be written.
        SourceError: no pictures there.
    """
    run, number, seed = RunFolder(config.out), config.images, config.search.seed
    sizes = repeat(config.images_per_shard)
    if _own_images(config):
        source = _open_source(config)
        identity, digest = f"tuning on {source.identity}", fingerprint(source.digest(), number, seed)
        samples = source.subset(number, seed)
    else:
        dataset = tuning_dataset(config)
        identity = f"tuning on {dataset.identity}"
        digest = fingerprint(dataset.digest(number), number, _label_source(config, _resolved_card(config)))
        samples = _without_masks(islice(dataset.samples(), number))
    digest = fingerprint(digest, config.images_per_shard)
    return read_index(run, identity, digest) or write_shards(run, samples, sizes, identity, digest)


def group_runtime(runtime: RuntimeConfig, group: int) -> RuntimeConfig:
    """Where a group is searched: with several GPUs and none named, they take turns."""
    import torch

    gpus = torch.cuda.device_count()
    if runtime.device not in ("auto", "cuda") or gpus < 2:
        return runtime
    return runtime.model_copy(update={"device": f"cuda:{group % gpus}"})


def parallel_groups(config: TuneConfig) -> int:
    """How many groups are searched at the same time."""
    import torch

    any_gpu = config.runtime.device in ("auto", "cuda")
    return config.search.parallel or max(1, torch.cuda.device_count() if any_gpu else 1)
