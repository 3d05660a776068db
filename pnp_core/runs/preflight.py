"""What can be found wrong with a run before anything is started."""

from __future__ import annotations

from pnp_core.config import EvalConfig, LabelConfig
from pnp_core.data import label_type
from pnp_core.errors import CaptionTooLongError, ClassNameError
from pnp_core.inputs.own_classes import named
from pnp_core.inputs.sources import Source
from pnp_core.inputs.sources.links import passed_over
from pnp_core.methods import method_of
from pnp_core.methods.base import Loaded
from pnp_core.runs.plan import Plan, open_images, open_split, plan_eval, plan_label
from pnp_core.stages.maps import SalienceJob
from pnp_core.storage.files import Files
from pnp_core.storage.ownership import check_ours, check_writable


def remarks(job: SalienceJob) -> list[str]:
    """Warnings: what a user, and whoever reads the results, should know of the model."""
    return method_of(job.method).remarks(job.method, job.questions)


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
    return remarks(plan.salience)


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
    source = open_images(config)
    job = plan.salience
    warnings = own_remarks(plan) if job.folder.has_results else check_own_images(plan)
    warnings += ignored_files(source)
    check_writable(config.out, "run")
    return warnings


def check_own_images(plan: Plan) -> list[str]:
    """Try the captions, for which the model is loaded: a folder with results of the same settings needs it no more.

    Returns:
        Warnings for the user.

    Raises:
        PnpError: a class name the text encoder cannot read.
    """
    job = plan.salience
    loaded = job.load()
    try:
        loaded.check(job.vocabulary)
    except (ClassNameError, CaptionTooLongError) as error:
        raise type(error)(f"{_whose(job, loaded)}{error}") from error
    return own_remarks(plan)


def own_remarks(plan: Plan) -> list[str]:
    """Warnings for whoever has own classes: of the model, and of what their ids make of masks."""
    job = plan.masks
    ids = dict(zip(job.ids or (), job.class_names, strict=False))
    if not ids or label_type(max(ids)) == label_type(len(ids)):
        return remarks(plan.salience)
    wide = f"the id {max(ids)} of '{ids[max(ids)]}' is over 254: all masks have 16 bits, as grey PNGs without colours"
    return [*remarks(plan.salience), wide]


def _whose(job: SalienceJob, loaded: Loaded) -> str:
    """Which class the model cannot be asked about, and by what, where that is not its name."""
    for label in job.vocabulary:
        name, prompts = job.card.names[label - 1], job.prompts_of(label)
        try:
            if prompts != (name,):
                loaded.check((label,))
        except (ClassNameError, CaptionTooLongError):
            return f"class '{name}', asked by {named(repr(prompt[:40]) for prompt in prompts)}: "
    return ""
