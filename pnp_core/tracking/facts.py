"""What of finished runs is recorded in a store for experiments; read from what they left in their run folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from math import isfinite
from typing import Any

from pnp_core.config import AblateConfig, EvalConfig, LabelConfig, PipelineConfig
from pnp_core.data import RunSummary, Summary
from pnp_core.report.page import PAGE
from pnp_core.runs.record import RUN, SCORES, read_record
from pnp_core.storage.provenance import commit
from pnp_core.storage.run_folder import RunFolder, fingerprint
from pnp_core.tracking.base import Tracked

_UNRECORDED = {"out", "track", "preset", "config_file"}
"""Of a configuration: places, and what it was composed of."""


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by dotted names; lists are values.

    >>> dict(flattened({"masks": {"crf": {"name": "fast"}}, "classes": ["cat"]}))
    {'masks.crf.name': 'fast', 'classes': ['cat']}
    """
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def of_run(config: EvalConfig | LabelConfig, summary: RunSummary) -> Tracked:
    """A run of `eval` or `label`."""
    run = RunFolder(config.out)
    record = read_record(run)
    assert record, "it is written by every run that ends"
    kind = "eval" if isinstance(config, EvalConfig) else "label"
    names = record.fingerprints.model_dump()
    scores = {f"iou/{name}": iou for name, iou in summary.scores.get("per_class_iou", {}).items()}
    counts = {name: getattr(summary, name) for name in ("images", "labelled", "quarantined", "failed")}
    return Tracked(
        identity=identity(kind, config, names),
        name=config.title,
        out=config.out,
        settings=settings(config),
        metrics=numbers({**counts, **timings(summary), **summary.scores, **scores}),
        tags=tags(kind, config.out, record.fingerprints.scores or record.fingerprints.masks)
        | {"pnp_ovss.weights": record.weights_revision, "pnp_ovss.report": run.path(PAGE)},
        files=(PAGE, RUN, SCORES),
    )


def of_ablation(config: AblateConfig, made: Mapping[str, float | None]) -> Tracked:
    """A run of `ablate`: mIoU by setting.

    Args:
        config: of the run.
        made: mIoU of the settings that it evaluated, by name.
    """
    name = fingerprint(config.setting())
    return Tracked(
        identity=identity("ablate", config, None),
        name=f"ablate-{config.title}",
        out=config.out,
        settings=settings(config),
        metrics=numbers({f"miou/{place}": miou for place, miou in made.items()}),
        tags=tags("ablate", config.out, name),
    )


def identity(kind: str, config: PipelineConfig, names: Any) -> str:
    """What is the same in a run that is resumed: its folder, all that can change a score, and the results' names."""
    return fingerprint(kind, _place(config.out), config.setting(), names)


def _place(out: str) -> str:
    return out if "://" in out else os.path.abspath(os.path.expanduser(out))  # noqa: PTH100, PTH111


def settings(config: PipelineConfig) -> dict[str, Any]:
    """The configuration by dotted names."""
    return dict(flattened(config.model_dump(mode="json", exclude=_UNRECORDED)))


def tags(kind: str, out: str, name: str) -> dict[str, str]:
    """What every record has: kind, run folder, the name of its results, version and commit."""
    own = {"kind": kind, "out": _place(out), "fingerprint": name, "version": version("pnp-ovss")}
    return {f"pnp_ovss.{key}": value for key, value in own.items()} | (
        {"mlflow.source.git.commit": made_by} if (made_by := commit()) else {}
    )


def timings(summary: Summary) -> dict[str, Any]:
    """Of the stages that computed something: one that was resumed measured nothing."""
    measured = ((name, stage) for name, stage in summary.stages.items() if name != "shard")  # which always looks
    rates = {name: stage for name, stage in measured if stage.images_per_second is not None}
    seconds = {f"seconds/{name}": stage.seconds for name, stage in rates.items()}
    return seconds | {f"pictures_per_second/{name}": stage.images_per_second for name, stage in rates.items()}


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of the values that are finite numbers."""
    numbers = {n: float(v) for n, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {name: value for name, value in numbers.items() if isfinite(value)}
