"""From a flow's configuration to the jobs of its stages."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pnp_core.config import DatasetConfig, EvalConfig, LabelConfig, LabellingConfig, OwnImagesConfig, PipelineConfig
from pnp_core.data import label_type
from pnp_core.errors import UsageError
from pnp_core.inputs.cards import DatasetCard, load_card
from pnp_core.inputs.images import voc_palette
from pnp_core.inputs.own_classes import Vocabulary, vocabulary_of
from pnp_core.inputs.readers import Dataset, open_dataset, resolve_card
from pnp_core.inputs.sources import Source, open_source
from pnp_core.masks.refine import open_refiner
from pnp_core.methods import Pinned, method_of
from pnp_core.methods.prompted import askable_groups
from pnp_core.runs.redo import open_decided
from pnp_core.stages.config import RuntimeConfig
from pnp_core.stages.maps import SalienceJob
from pnp_core.stages.masks import MaskJob
from pnp_core.stages.scores import ScoreJob

MOST_SCORED = 5_000
"""Classes that can be scored at most: pixels are counted in a matrix of classes by classes, 200 MB of so many."""


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


def _plan(
    config: LabellingConfig,
    card: DatasetCard,
    only: tuple[int, ...] | None,
    pinned: Pinned | None = None,
    own: Vocabulary | None = None,
) -> Plan:
    prompts = own.several_prompts if own else ()
    vocabulary = askable_labels(config, card, only, prompts)
    salience = SalienceJob.create(
        config.out, config.method, config.salience, _runtime(config), card, vocabulary, pinned, prompts
    )
    rule = card.background_rule if config.masks.background == "auto" else config.masks.background
    runtime = _runtime_of_masks(config, salience)
    open_refiner(config.masks.crf, "cpu")  # whether there is one, before anything is started
    masks = MaskJob(
        out=config.out,
        method=config.method,
        config=config.masks.model_copy(update={"background": rule}),
        runtime=runtime,
        max_pixels=config.salience.max_pixels,
        class_names=card.names,
        palette=_palette(card, own),
        ids=own.ids if own else None,
        model=f"{config.method.describe().model}@{salience.pinned.revision}",
        salience_fingerprint=salience.fingerprint,
        pinned=salience.pinned,
    )
    return Plan(salience, masks, None, config.png)


def _palette(card: DatasetCard, own: Vocabulary | None) -> tuple[str, ...] | None:
    """Colours of the labels 0, 1 ... where some are not Pascal VOC's; those are of the values in masks."""
    if own is None or not any(own.colours):
        return None if card.palette == "voc" else card.palette
    ids = own.ids or tuple(range(1, len(own.names) + 1))
    usual = voc_palette(label_type(max(*ids, len(ids))))
    # A query for background becomes 0 in masks: its own colour is in no mask, and the report has colours of its own.
    shown = (value or label for label, value in enumerate((0, *ids)))
    return tuple(
        colour or f"#{bytes(usual[value]).hex()}" for value, colour in zip(shown, (None, *own.colours), strict=True)
    )


def _runtime(config: LabellingConfig) -> RuntimeConfig:
    """Other machines would take another number of threads by themselves, which would change last bits."""
    if config.dispatch.mode == "inline" or config.runtime.threads:
        return config.runtime
    from pnp_core.devices import default_threads

    return config.runtime.model_copy(update={"threads": default_threads()})


def _runtime_of_masks(config: LabellingConfig, salience: SalienceJob) -> RuntimeConfig:
    """A deployment's workers have the device that was asked for; masks are made here, on what there is."""
    elsewhere = config.dispatch.mode == "deployment"
    return salience.runtime.model_copy(update={"device": "auto"} if elsewhere else {})


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


def check_scored(card: DatasetCard) -> None:
    """Find out whether masks of a dataset can be scored.

    Raises:
        UsageError: it has too many classes.
    """
    if len(card.classes) > MOST_SCORED:
        raise UsageError(f"{card.name} has {len(card.classes)} classes, and at most {MOST_SCORED} can be scored")


def plan_eval(config: EvalConfig) -> Plan:
    """The jobs of an `eval` run.

    Raises:
        PnpError: the dataset, a class, backbone, checkpoint, layer, head or CRF does not exist or fit.
    """
    card = resolve_card(load_card(config.dataset), config.data)
    if config.score.void_as_background and not card.background:
        raise UsageError(f"void_as_background makes no sense for {card.name}, where background is not scored")
    check_scored(card)
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


def check_candidates(config: OwnImagesConfig) -> None:
    """Find out whether a user's own pictures can be asked about as configured, before there are any.

    Raises:
        PnpError: no such source of candidates, its data are missing, or it is for datasets or other methods.
    """
    candidates = config.salience.candidates
    if candidates.source == "labels":
        raise UsageError("a corpus has no image-level labels; use --candidates itm, vocabulary, clip or file")
    SalienceJob.pin_candidates(config.method, candidates)


def plan_label(config: OwnImagesConfig, pinned: Pinned | None = None) -> Plan:
    """The jobs of a run over a user's own pictures.

    Args:
        pinned: the weights, where they are pinned already.

    Raises:
        PnpError: a class name, backbone, checkpoint, layer, head or CRF does not exist or fit.
    """
    check_candidates(config)
    own = vocabulary_of(config.classes)
    return _plan(config, load_card("folder").with_classes(own.entries), None, pinned, own)


def open_split(config: EvalConfig) -> Dataset:
    """The split of a dataset, or the pictures of it with some classes.

    Raises:
        PnpError: no such split, or files are missing.
    """
    card = resolve_card(load_card(config.dataset), config.data)
    return open_dataset(
        card, config.data, config.split, config.ground_truth, config.image_labels or "masks", class_subset(config, card)
    )


def images_there(config: EvalConfig) -> int:
    """Pictures that are listed in the split, of whatever classes.

    Raises:
        PnpError: no such split, or files are missing.
    """
    return len(open_split(config))


def askable_labels(
    config: PipelineConfig,
    card: DatasetCard,
    only: tuple[int, ...] | None,
    prompts: tuple[tuple[str, ...], ...] = (),
) -> tuple[int, ...]:
    """Labels that may be candidates: those wanted, but for what the method cannot be asked about.

    Args:
        only: labels of a class subset, all when None.
        prompts: what each class is asked by, where one has several: one that can be asked is enough.

    Raises:
        UsageError: there is none.
    """
    wanted = [label for label in only or range(1, len(card.classes) + 1) if label]
    if prompts:
        groups = askable_groups(config.method, prompts, wanted)
        return tuple(label for label in wanted if groups[label - 1])
    captions = card.captions_in(config.salience.words)
    return method_of(config.method).askable(config.method, {label: captions[label - 1] for label in wanted})


def open_images(config: LabelConfig) -> Source:
    """A user's own pictures.

    Raises:
        SourceError: there are none.
        UsageError: those of a finished run are wanted, and there is none, or no review of it.
    """
    if config.redo:
        return open_decided(config.source, config.redo, config.review)
    if config.review:
        raise UsageError("`review` names the decisions for `redo`: give both, or none")
    return open_source(
        config.source, config.out, config.image_column, config.follow_links, config.exclude, config.fetch_seconds
    )
