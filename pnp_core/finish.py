"""The record of a run: what it was given, what made it, what came out."""

from __future__ import annotations

from typing import Any

from pnp_core.cards import load_card
from pnp_core.config import EvalConfig, LabellingConfig
from pnp_core.plan import Plan
from pnp_core.provenance import commit, peak_memory, versions
from pnp_core.records import RunSummary
from pnp_core.store import RunFolder

RUN, SCORES = "run.json", "scores.json"
EVALUATIONS = "evaluations"
"""Folder with record and scores of every setting that was scored on the pictures of a run folder."""


def evaluation_folder(plan: Plan) -> str:
    """Where an evaluation's record and scores lie, relative to the run folder."""
    assert plan.score
    return f"{EVALUATIONS}/{plan.score.fingerprint}"


def finish_run(config: LabellingConfig, plan: Plan, summary: RunSummary, main: bool = True) -> None:
    """Write the record of a run, after its scores.

    Args:
        main: it is what the run folder stands for (run.json, scores.json), and no other setting tried on its
            pictures; those are found in `evaluations` alone.
    """
    run = RunFolder(config.out)
    record = _record(config, plan, summary)
    places = [""] if main else []
    if plan.score:
        folder = evaluation_folder(plan)
        places.append(f"{folder}/")
        _keep_measured(record, run.read_json(f"{folder}/{RUN}"))
    for place in places:
        if summary.scores:
            run.write_json(f"{place}{SCORES}", summary.scores)
        else:
            run.remove(f"{place}{SCORES}")
        run.write_json(f"{place}{RUN}", record)


def _record(config: LabellingConfig, plan: Plan, summary: RunSummary) -> dict[str, Any]:
    card = load_card(config.dataset) if isinstance(config, EvalConfig) else None
    inline = config.dispatch.mode == "inline"
    return {
        "config": config.model_dump(mode="json"),
        "versions": versions(),
        "commit": commit(),
        "weights_revision": plan.salience.checkpoint.revision,
        "model": {"layers": plan.salience.checkpoint.layers, "heads": plan.salience.checkpoint.heads},
        "card": {"name": card.name, "version": card.version} if card else None,
        "classes": list(plan.masks.class_names),
        "fingerprints": {
            "salience": plan.salience.fingerprint,
            "masks": plan.masks.fingerprint,
            "scores": plan.score.fingerprint if plan.score else None,
        },
        "device": _device(plan),
        # Elsewhere other processes did the work, whose memory is not known here.
        "memory": peak_memory() if inline else None,
        "rates": {name: stage.images_per_second for name, stage in summary.stages.items()},
        "summary": summary.as_json(),
    }


def _device(plan: Plan) -> str:
    """What computes salience, for people."""
    import torch

    chosen = plan.salience.runtime.device
    if chosen in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "cpu" if chosen == "auto" else chosen


def _keep_measured(record: dict[str, Any], before: dict[str, Any] | None) -> None:
    """A run that computes nothing anew measures nothing: what was measured when it did stays."""
    if before is None:
        return
    resumed = [name for name, rate in record["rates"].items() if rate is None]
    for name in resumed:
        record["rates"][name] = before["rates"].get(name)
    if "salience" in resumed:
        record.update({key: before[key] for key in ("memory", "device")})
