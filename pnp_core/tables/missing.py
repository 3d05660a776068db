"""Which evaluations tables still need."""

from __future__ import annotations

from pnp_core.config import AblateConfig, EvalConfig
from pnp_core.errors import CorruptRunError, UsageError
from pnp_core.runs.plan import plan_eval
from pnp_core.runs.record import read_record
from pnp_core.runs.recording import setting_facts
from pnp_core.storage.run_folder import RunFolder
from pnp_core.tables.evaluations import Evaluation, Facts, setting_key, whole_evaluations
from pnp_core.tables.studies import STUDIES


def missing_settings(config: AblateConfig) -> list[tuple[str, EvalConfig]]:
    """Settings that the wanted tables need and the run folder has no whole scores of, each once; the base first.

    Returns:
        What it is, for people, and its configuration.

    Raises:
        PnpError: as `plan_eval`; or the folder holds a run of other pictures.
    """
    _check_same_images(config)
    facts = Facts.of(setting_facts(config.base, plan_eval(config.base)))
    found = [e for e in whole_evaluations(config.out) if _whole(e)]
    there = {e.key for e in found}
    wanted = []
    for name in dict.fromkeys(config.tables):
        study = STUDIES[name]
        for variant in study.variants(config.base, facts):
            place = f"{study.rows} {variant.row}" + (f", {study.columns} {variant.column}" if study.columns else "")
            wanted.append((place, variant.config))
    missing: dict[str, tuple[str, EvalConfig]] = {}
    base = setting_key(config.base, facts)
    if base not in {e.key for e in found if e.main}:  # tables are made around what a run folder stands for
        missing[base] = ("the base setting", config.base)
    for place, setting in wanted:
        key = setting_key(setting, facts)
        if key not in there:
            missing.setdefault(key, (place, setting))
    return list(missing.values())


def _check_same_images(config: AblateConfig) -> None:
    """Another number of pictures would cost what the folder holds: that must be asked for with `eval`."""
    try:
        record = read_record(RunFolder(config.out))
    except CorruptRunError:  # it is made again
        return
    if record is None:
        return
    there, wanted = record.config.model_dump(mode="json"), config.base.model_dump(mode="json")
    for name in ("dataset", "split", "limit", "only_classes", "image_labels", "ground_truth"):
        if there.get(name) != wanted[name]:
            raise UsageError(
                f"'{config.out}' holds a run with {name} {there.get(name)}, not {wanted[name]}: give the same options, "
                f"or choose another --out"
            )


def _whole(evaluation: Evaluation) -> bool:
    """Whether it has scores, and no shard failed that another attempt could bring."""
    return evaluation.scores is not None and not evaluation.record.summary.failed
