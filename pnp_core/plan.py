"""From a flow's configuration to the jobs of its stages, and the record of the run."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pnp_core.cards import DatasetCard, check_split, load_card, read_samples
from pnp_core.config import TINY, EvalConfig, LabelConfig, PipelineConfig
from pnp_core.crf import get_crf
from pnp_core.prompts import build_prompts, clean_class_names
from pnp_core.records import RunSummary, ShardRef
from pnp_core.shapes import CLASS_NAMES
from pnp_core.shards import even_sizes, read_index, write_shards
from pnp_core.sources import open_source
from pnp_core.stages.masks import MaskJob
from pnp_core.stages.salience import SalienceJob
from pnp_core.stages.scores import ScoreJob
from pnp_core.store import RunFolder, fingerprint

_PACKAGES = ("pnp-ovss", "torch", "transformers", "pydensecrf2", "prefect", "numpy", "pillow", "pyarrow", "webdataset")


@dataclass(frozen=True)
class Plan:
    """The jobs of one run; `score` only where there is ground truth."""

    salience: SalienceJob
    masks: MaskJob
    score: ScoreJob | None
    png: bool


def _plan(
    config: PipelineConfig,
    class_names: tuple[str, ...],
    background: Literal["always", "few"],
    score: EvalConfig | None,
) -> Plan:
    get_crf(config.masks.crf.name)
    salience = SalienceJob.create(config.out, config.salience, config.runtime, class_names)
    rule = background if config.masks.background == "auto" else config.masks.background
    backbone = config.salience.backbone
    masks = MaskJob(
        out=config.out,
        config=config.masks.model_copy(update={"background": rule}),
        max_pixels=config.salience.max_pixels,
        class_names=class_names,
        model=f"{backbone.name}:{backbone.checkpoint}@{salience.checkpoint.revision}",
        salience_fingerprint=salience.fingerprint,
    )
    score_job = score and ScoreJob(
        out=config.out,
        config=score.score,
        label_names=("background", *class_names),
        masks_fingerprint=masks.fingerprint,
    )
    return Plan(salience, masks, score_job, config.png)


def plan_eval(config: EvalConfig) -> Plan:
    """The jobs of an `eval` run.

    Raises:
        PnpError: the dataset, backbone, checkpoint, layer, head or CRF does not exist or fit.
    """
    card = load_card(config.dataset)
    return _plan(config, card.classes, card.background_rule, config)


def plan_label(config: LabelConfig) -> Plan:
    """The jobs of a `label` run.

    Raises:
        PnpError: a class name, backbone, checkpoint, layer, head or CRF does not exist or fit.
    """
    return _plan(config, tuple(clean_class_names(config.classes)), "always", None)


def check_eval(config: EvalConfig) -> None:
    """Find what is wrong with a run before anything is started.

    Raises:
        PnpError: as `plan_eval`; or no such split, or the run folder cannot be written.
    """
    plan_eval(config)
    card = load_card(config.dataset)
    check_split(card, config.split)
    RunFolder(config.out).check_writable()


def check_label(config: LabelConfig) -> list[str]:
    """Find what is wrong with a run before anything is started.

    Returns:
        Warnings for the user.

    Raises:
        PnpError: as `plan_label`; or no pictures, a class name the text encoder cannot read, or the
            run folder cannot be written.
    """
    plan = plan_label(config)
    source = open_source(config.source, leave_out=config.out)
    RunFolder(config.out).check_writable()
    build_prompts(plan.salience.class_names, config.salience.caption, plan.salience.backbone())
    warnings = []
    foreign = [name for name in plan.salience.class_names if name.lower() not in CLASS_NAMES]
    if config.salience.backbone.checkpoint == TINY and foreign:
        warnings.append(
            f"the bundled tiny model knows only its {len(CLASS_NAMES)} drawn classes, not {', '.join(foreign)}: "
            f"these masks mean nothing. For photographs use --checkpoint with a BLIP-ITM model, such as "
            f"Salesforce/blip-itm-large-flickr"
        )
    if source.ignored:
        counts = ", ".join(f"{ending} x{number}" for ending, number in source.ignored.most_common(5))
        warnings.append(f"{source.ignored.total()} files passed over because they are no pictures ({counts})")
    return warnings


def shard_dataset(config: EvalConfig) -> list[ShardRef]:
    """Write a dataset split as shards, or reuse the ones that are there.

    Raises:
        OutputError: the run folder belongs to another dataset or cannot be written.
    """
    card: DatasetCard = load_card(config.dataset)
    run = RunFolder(config.out)
    identity = f"dataset {card.name}, split {config.split}"
    samples = read_samples(card, config.split)
    digest = fingerprint(card.model_dump(), config.split, config.limit, config.shards)
    known = read_index(run, identity, digest)
    sizes = even_sizes(config.limit, config.shards)
    return known or write_shards(run, samples, sizes, identity, digest)


def shard_source(config: LabelConfig) -> list[ShardRef]:
    """Write a user's pictures as shards, or reuse the ones that are there.

    Raises:
        SourceError: no pictures there.
        OutputError: the run folder belongs to another source or cannot be written.
    """
    source = open_source(config.source, leave_out=config.out)
    run = RunFolder(config.out)
    digest = fingerprint(source.digest(), config.images_per_shard)

    def sizes():
        while True:
            yield config.images_per_shard

    known = read_index(run, source.identity, digest)
    return known or write_shards(run, source.samples(), sizes(), source.identity, digest)


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_run_record(config: PipelineConfig, plan: Plan, summary: RunSummary) -> None:
    """Write run.json: configuration, versions, weights, fingerprints, counts and timings."""
    card = load_card(config.dataset) if isinstance(config, EvalConfig) else None
    record: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "versions": _versions(),
        "weights_revision": plan.salience.checkpoint.revision,
        "card": {"name": card.name, "version": card.version} if card else None,
        "fingerprints": {
            "salience": plan.salience.fingerprint,
            "masks": plan.masks.fingerprint,
            "scores": plan.score.fingerprint if plan.score else None,
        },
        "summary": summary.as_json(),
    }
    RunFolder(config.out).write_json("run.json", record)
