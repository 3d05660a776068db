"""Which evaluations tables still need."""

from __future__ import annotations

from pnp_core.config import AblateConfig, EvalConfig
from pnp_core.plan import plan_eval
from pnp_core.tables.evaluations import Evaluation, read_folder, setting_key
from pnp_core.tables.studies import STUDIES


def missing_settings(config: AblateConfig) -> list[tuple[str, EvalConfig]]:
    """Settings that the wanted tables need and the run folder has no whole scores of, each once; the base first.

    Returns:
        What it is, for people, and its configuration.

    Raises:
        PnpError: as `plan_eval`.
    """
    checkpoint = plan_eval(config.base).salience.checkpoint
    there = {e.key for e in read_folder(config.out) if _whole(e)}
    wanted = [("the base setting", config.base)]
    for name in dict.fromkeys(config.tables):
        study = STUDIES[name]
        for variant in study.variants(config.base, checkpoint.layers, checkpoint.heads):
            place = f"{study.rows} {variant.row}" + (f", {study.columns} {variant.column}" if study.columns else "")
            wanted.append((place, variant.config))
    missing: dict[str, tuple[str, EvalConfig]] = {}
    for place, setting in wanted:
        key = setting_key(setting, checkpoint.revision)
        if key not in there:
            missing.setdefault(key, (place, setting))
    return list(missing.values())


def _whole(evaluation: Evaluation) -> bool:
    """Whether it has scores, and no shard failed that another attempt could bring."""
    return evaluation.scores is not None and not evaluation.record["summary"]["failed"]
