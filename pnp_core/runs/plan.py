"""From a flow's configuration to the jobs of its stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice, product

from pnp_core.bundled import PHOTO, TINY
from pnp_core.config import DatasetConfig, EvalConfig, LabelConfig, LabellingConfig, OwnPicturesConfig
from pnp_core.data import ShardRef
from pnp_core.errors import ClassNameError, UsageError
from pnp_core.inputs.cards import DatasetCard, load_card
from pnp_core.inputs.class_names import clean_class_names
from pnp_core.inputs.readers import Dataset, open_dataset, resolve_card
from pnp_core.inputs.scenes.shapes import CLASS_NAMES
from pnp_core.inputs.sources import Source, open_source
from pnp_core.inputs.sources.links import passed_over
from pnp_core.masks.refine import get_crf
from pnp_core.methods.pnp.backbones import backbone_card
from pnp_core.methods.pnp.backbones.known_names import listed, unknown_names
from pnp_core.methods.pnp.prompts import build_prompts
from pnp_core.runs.reasons import grouped
from pnp_core.stages.maps import SalienceJob
from pnp_core.stages.masks import MaskJob
from pnp_core.stages.scores import ScoreJob
from pnp_core.storage.completion import StageFolder
from pnp_core.storage.files import Files
from pnp_core.storage.ownership import check_ours, check_writable
from pnp_core.storage.run_folder import RunFolder, fingerprint
from pnp_core.storage.shards import even_sizes, read_index, write_shards

PER_SHARD = 64
"""Pictures in a shard when nothing else is asked for."""
FEWEST_SHARDS = 8
REASONS = 20
"""Reasons for quarantine in a run's summary; the tables have all."""


@dataclass(frozen=True)
class Plan:
    """The jobs of one run; `score` only where there is ground truth."""

    salience: SalienceJob
    masks: MaskJob
    score: ScoreJob | None
    png: bool

    def at(self, out: str) -> Plan:
        """The same jobs in another run folder; what is pinned stays so."""
        there = {"out": out}
        salience, masks = self.salience.model_copy(update=there), self.masks.model_copy(update=there)
        return Plan(salience, masks, self.score and self.score.model_copy(update=there), self.png)


def _plan(config: LabellingConfig, card: DatasetCard, only: tuple[int, ...] | None) -> Plan:
    get_crf(config.masks.crf.name)
    iterations = config.salience.dropout.iterations
    if (config.masks.passes or 0) > iterations:
        raise UsageError(f"masks.passes {config.masks.passes} is more than the {iterations} drop iterations there are")
    vocabulary = candidate_labels(card, config.salience.backbone.checkpoint, only)
    salience = SalienceJob.create(config.out, config.salience, config.runtime, card, vocabulary)
    rule = card.background_rule if config.masks.background == "auto" else config.masks.background
    backbone = config.salience.backbone
    masks = MaskJob(
        out=config.out,
        config=config.masks.model_copy(update={"background": rule}),
        max_pixels=config.salience.max_pixels,
        class_names=card.names,
        palette=None if card.palette == "voc" else card.palette,
        model=f"{backbone.name}:{backbone.checkpoint}@{salience.checkpoint.revision}",
        salience_fingerprint=salience.fingerprint,
    )
    return Plan(salience, masks, None, config.png)


def class_subset(config: DatasetConfig, card: DatasetCard) -> tuple[int, ...] | None:
    """Labels of the class subset, None without one.

    Raises:
        UsageError: it holds nothing but background.
    """
    if not config.only_classes:
        return None
    labels = card.labels(config.only_classes)
    if labels == (0,):
        raise UsageError("only_classes names background alone; name at least one class")
    return labels


def scored_labels(card: DatasetCard, only: tuple[int, ...] | None) -> tuple[int, ...]:
    """Labels that enter the mean: those of the class subset, or all, background where it is a class."""
    return only or tuple(range(0 if card.background else 1, len(card.classes) + 1))


def plan_eval(config: EvalConfig) -> Plan:
    """The jobs of an `eval` run.

    Raises:
        PnpError: the dataset, a class, backbone, checkpoint, layer, head or CRF does not exist or fit.
    """
    card = resolve_card(load_card(config.dataset), config.data)
    if config.score.void_as_background and not card.background:
        raise UsageError(f"void_as_background makes no sense for {card.name}, where background is not scored")
    only = class_subset(config, card)
    plan = _plan(config, card, only)
    score = ScoreJob(
        out=config.out,
        config=config.score,
        label_names=("background", *card.names),
        scored=scored_labels(card, only),
        masks_fingerprint=plan.masks.fingerprint,
    )
    return replace(plan, score=score)


def plan_label(config: OwnPicturesConfig) -> Plan:
    """The jobs of a run over a user's own pictures.

    Raises:
        PnpError: a class name, backbone, checkpoint, layer, head or CRF does not exist or fit.
    """
    if config.salience.candidates.source == "labels":
        raise UsageError("a corpus has no image-level labels; use --candidates itm, vocabulary, clip or file")
    card = load_card("folder").with_classes(tuple(clean_class_names(config.classes)))
    return _plan(config, card, None)


def _open_dataset(config: EvalConfig) -> Dataset:
    card = resolve_card(load_card(config.dataset), config.data)
    return open_dataset(
        card, config.data, config.split, config.ground_truth, config.image_labels or "masks", class_subset(config, card)
    )


def pictures_there(config: EvalConfig) -> int:
    """Pictures that are listed in the split, of whatever classes.

    Raises:
        PnpError: no such split, or files are missing.
    """
    return len(_open_dataset(config))


def untuned_layer_head(job: SalienceJob) -> list[str]:
    """A warning when layer and head are a default that nobody has measured."""
    card = backbone_card(job.config.backbone.name)
    if not card.guess or (job.config.layer, job.config.head) != (card.layer, card.head):
        return []
    return [
        f"layer {card.layer} and head {card.head} of {card.name} are a guess; `pnp-ovss tune` finds better ones, "
        f"and --config best.yaml uses them"
    ]


def warnings_of(job: SalienceJob) -> list[str]:
    """What a user, and whoever reads the results, should know of the model."""
    checkpoint = job.config.backbone.checkpoint
    if not (unknown := unknown_names(checkpoint, job.card.captions)):
        return untuned_layer_head(job)
    if checkpoint == TINY:
        return [
            f"the bundled tiny model knows only its {len(CLASS_NAMES)} drawn classes, not "
            f"{listed([replace(name, nearest=()) for name in unknown])}: its masks mean nothing. {FOR_PHOTOGRAPHS}"
        ]
    return [f"the {checkpoint} model does not know {listed(unknown)}: left out"]


FOR_PHOTOGRAPHS = "For photographs take --preset photo, or the weights of a large model (`pnp-ovss backbones`)"


def candidate_labels(card: DatasetCard, checkpoint: str, only: tuple[int, ...] | None) -> tuple[int, ...]:
    """Labels that may be candidates: those asked for, but for names that the photo model has no token for.

    Args:
        only: labels of a class subset, all when None.

    Raises:
        ClassNameError: there is none.
    """
    asked = [label for label in only or range(1, len(card.classes) + 1) if label]
    unknown = unknown_names(checkpoint, [card.captions[label - 1] for label in asked]) if checkpoint == PHOTO else []
    lost = {name.name for name in unknown}
    labels = tuple(label for label in asked if card.captions[label - 1] not in lost)
    if not labels:
        raise ClassNameError(
            f"the photo model knows none of the class names: {listed(unknown)}; `pnp-ovss models photo` lists what it "
            f"knows, and large models know more (`pnp-ovss backbones`)"
        )
    return labels


def check_eval(config: EvalConfig) -> list[str]:
    """Find what is wrong with a run before anything is started.

    Returns:
        Warnings for the user.

    Raises:
        PnpError: as `plan_eval`; or no such split, files are missing, or the run folder cannot be written.
    """
    plan = plan_eval(config)
    check_ours(Files(config.out), "run")
    _open_dataset(config)
    check_writable(config.out, "run")
    return warnings_of(plan.salience)


def ignored_files(source: Source) -> list[str]:
    """Warnings when files were passed over."""
    return passed_over(source.ignored)


def _open_source(config: LabelConfig) -> Source:
    return open_source(
        config.source, config.out, config.image_column, config.follow_links, config.exclude, config.fetch_seconds
    )


def check_label(config: LabelConfig) -> list[str]:
    """Find what is wrong with a run before anything is started.

    Returns:
        Warnings for the user.

    Raises:
        PnpError: as `plan_label`; or no pictures, a class name the text encoder cannot read, or the
            run folder cannot be written.
    """
    plan = plan_label(config)
    check_ours(Files(config.out), "run")
    source = _open_source(config)
    warnings = check_own_pictures(plan) + ignored_files(source)
    check_writable(config.out, "run")
    return warnings


def check_own_pictures(plan: Plan) -> list[str]:
    """Try the captions.

    Returns:
        Warnings for the user.

    Raises:
        PnpError: a class name the text encoder cannot read.
    """
    job = plan.salience
    build_prompts([job.captions[label - 1] for label in job.vocabulary], job.config.caption, job.backbone())
    return warnings_of(job)


def shard_dataset(config: EvalConfig) -> list[ShardRef]:
    """Write a dataset split as shards, or reuse the ones that are there.

    Raises:
        OutputError: the run folder belongs to another dataset or cannot be written.
    """
    dataset = _open_dataset(config)
    run = RunFolder(config.out)
    # A drawn dataset has no end: a limit may go beyond what is usual.
    pictures = min(config.limit or len(dataset), len(dataset)) if config.data else config.limit or len(dataset)
    shards = config.shards or max(FEWEST_SHARDS, -(-pictures // PER_SHARD))
    digest = fingerprint(dataset.digest(config.limit), config.image_labels or "masks", shards)
    known = read_index(run, dataset.identity, digest)
    sizes = even_sizes(pictures, shards)
    return known or write_shards(run, dataset.samples(), sizes, dataset.identity, digest)


def shard_source(config: LabelConfig) -> list[ShardRef]:
    """Write a user's pictures as shards, or reuse the ones that are there.

    Raises:
        SourceError: no pictures there.
        OutputError: the run folder belongs to another source or cannot be written.
    """
    source = _open_source(config)
    run = RunFolder(config.out)
    digest = fingerprint(source.digest(), config.images_per_shard)

    def sizes():
        while True:
            yield config.images_per_shard

    known = read_index(run, source.identity, digest)
    return known or write_shards(run, source.samples(), sizes(), source.identity, digest)


def quarantine_reasons(folders: Iterable[StageFolder], shards: list[ShardRef]) -> dict[str, int]:
    """The most frequent reasons of some stages' shards, see `grouped`."""
    reasons: Counter[str] = Counter()
    for folder, shard in product(folders, shards):
        reasons.update(picture.reason for picture in folder.quarantined(shard.name))
    return dict(islice(grouped(reasons).items(), REASONS))
