"""What can be found wrong with a run before anything is started."""

from __future__ import annotations

from dataclasses import replace

from pnp_core.bundled import TINY
from pnp_core.config import EvalConfig, LabelConfig
from pnp_core.inputs.scenes.shapes import CLASS_NAMES
from pnp_core.inputs.sources import Source
from pnp_core.inputs.sources.links import passed_over
from pnp_core.methods.pnp.backbones import backbone_card
from pnp_core.methods.pnp.backbones.known_names import listed, unknown_names
from pnp_core.methods.pnp.prompts import build_prompts
from pnp_core.runs.plan import Plan, open_pictures, open_split, plan_eval, plan_label
from pnp_core.stages.maps import SalienceJob
from pnp_core.storage.files import Files
from pnp_core.storage.ownership import check_ours, check_writable

FOR_PHOTOGRAPHS = "For photographs take --preset photo, or the weights of a large model (`pnp-ovss backbones`)"


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


def check_eval(config: EvalConfig) -> list[str]:
    """Find what is wrong with a run before anything is started.

    Returns:
        Warnings for the user.

    Raises:
        PnpError: as `plan_eval`; or no such split, files are missing, or the run folder cannot be written.
    """
    plan = plan_eval(config)
    check_ours(Files(config.out), "run")
    open_split(config)
    check_writable(config.out, "run")
    return warnings_of(plan.salience)


def ignored_files(source: Source) -> list[str]:
    """Warnings when files were passed over."""
    return passed_over(source.ignored)


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
    source = open_pictures(config)
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
