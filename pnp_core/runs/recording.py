"""Writing the record of a run: what it was given, what made it, what came out."""

from __future__ import annotations

from typing import Any

from pnp_core.config import EvalConfig, LabellingConfig
from pnp_core.data import RunSummary
from pnp_core.errors import CorruptRunError
from pnp_core.inputs.cards import load_card
from pnp_core.runs.plan import Plan, images_there
from pnp_core.runs.record import EVALUATIONS, RUN, SCORES, CardFacts, RunRecord, SettingFacts, read_record
from pnp_core.stages.maps import VERSION as SALIENCE
from pnp_core.stages.masks import VERSION as MASKS
from pnp_core.stages.scores import VERSION as SCORES_VERSION
from pnp_core.storage.provenance import commit, peak_memory, versions
from pnp_core.storage.run_folder import RunFolder, fingerprint


def evaluation_folder(plan: Plan) -> str:
    """Where an evaluation's record and scores lie, relative to the run folder."""
    assert plan.score
    return f"{EVALUATIONS}/{fingerprint(plan.score.fingerprint, plan.score.config.mean)}"


def write_run_record(config: LabellingConfig, plan: Plan, summary: RunSummary) -> None:
    """Write what the run folder stands for (run.json, scores.json), and among its evaluations where it was scored."""
    run = RunFolder(config.out)
    record = write_evaluation_record(config, plan, summary) if plan.score else _record(config, plan, summary)
    _write(run, "", record, summary)


def write_evaluation_record(config: LabellingConfig, plan: Plan, summary: RunSummary) -> RunRecord:
    """Write what became of a setting that was scored on the pictures of a run folder, in `evaluations` alone."""
    run, place = RunFolder(config.out), f"{evaluation_folder(plan)}/"
    record = _keep_measured(_record(config, plan, summary), _before(run, f"{place}{RUN}"))
    _write(run, place, record, summary)
    return record


def _write(run: RunFolder, place: str, record: RunRecord, summary: RunSummary) -> None:
    """Scores first: a record says that they are there."""
    if summary.scores:
        run.write_json(f"{place}{SCORES}", summary.scores)
    else:
        run.remove(f"{place}{SCORES}")
    run.write_json(f"{place}{RUN}", record.as_json())


def setting_facts(config: LabellingConfig, plan: Plan) -> SettingFacts:
    """What a score depends on besides the configuration, and what the settings around it can be made from."""
    return SettingFacts.model_validate(
        {
            "weights_revision": plan.salience.pinned.revision,
            "model": plan.salience.pinned.shape,
            "card": _card_facts(config) if isinstance(config, EvalConfig) else None,
            "stages": {"salience": SALIENCE, "masks": MASKS, "scores": SCORES_VERSION} | _newer_model(plan),
        }
    )


def _newer_model(plan: Plan) -> dict[str, int]:
    """The model's version, as one of a stage; the first has none in records."""
    version = plan.salience.pinned.version
    return {"backbone": version} if version > 1 else {}


def _record(config: LabellingConfig, plan: Plan, summary: RunSummary) -> RunRecord:
    # Elsewhere other processes did the work, and a resumed run did none: of neither is anything known here.
    here = config.dispatch.mode == "inline" and bool(summary.stages["salience"].images_per_second)
    facts = {
        **dict(setting_facts(config, plan)),
        "config": config.model_dump(mode="json"),
        "versions": versions(),
        "commit": commit(),
        "classes": list(plan.masks.class_names),
        "palette": [f"#{bytes(c).hex()}" for c in plan.masks.colours_of_labels[: len(plan.masks.class_names) + 1]],
        "fingerprints": {
            "salience": plan.salience.fingerprint,
            "masks": plan.masks.fingerprint,
            "scores": plan.score.fingerprint if plan.score else None,
        },
        "evaluation": evaluation_folder(plan).rsplit("/", 1)[-1] if plan.score else None,
        "device": _device(plan) if here else None,
        "memory": peak_memory() if here else None,
        "rates": {name: stage.images_per_second for name, stage in summary.stages.items()},
        "summary": summary.as_json(),
    }
    if plan.masks.ids:
        facts["ids"] = plan.masks.ids
    if plan.salience.pinned.runs:
        facts["runs"] = plan.salience.pinned.runs
    return RunRecord.model_validate(facts)


def _card_facts(config: EvalConfig) -> CardFacts:
    card = load_card(config.dataset)
    return CardFacts(
        name=card.name,
        version=card.version,
        split=config.split or card.default_split,
        images=card.images_of(config.split),
        listed=images_there(config) if config.only_classes else None,
        renamed=card.renamed,
        default_split=card.default_split,
        subsets=card.subsets,
    )


def _device(plan: Plan) -> str:
    """What computes salience, for people."""
    import torch

    chosen = plan.salience.runtime.device
    if chosen.startswith(("auto", "cuda")) and torch.cuda.is_available():
        return torch.cuda.get_device_name(None if chosen == "auto" else chosen)
    from pnp_core.devices import resolve_device

    return str(resolve_device(chosen)) if chosen == "auto" else chosen


def _before(run: RunFolder, file: str) -> RunRecord | None:
    """The record that is written anew, None where there is none, or none that can be read."""
    try:
        return read_record(run, file)
    except CorruptRunError:
        return None


def _keep_measured(record: RunRecord, before: RunRecord | None) -> RunRecord:
    """A run that computes nothing anew measures nothing: what was measured, and what made it, stays."""
    if before is None:
        return record
    resumed = {name for name, rate in record.rates.items() if rate is None}
    kept: dict[str, Any] = {"rates": {**record.rates, **{name: before.rates.get(name) for name in resumed}}}
    if "salience" in resumed:
        kept |= {"memory": before.memory, "device": before.device}
    if {"salience", "masks", "scores"} <= resumed:
        kept |= {"commit": before.commit, "versions": before.versions}
    return record.model_copy(update=kept)
