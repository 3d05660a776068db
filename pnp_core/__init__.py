"""PnP-OVSS, the method: open-vocabulary segmentation from an off-the-shelf vision-language model.

Luo, Khandelwal, Sigal, Li, "Emergent Open-Vocabulary Semantic Segmentation from Off-the-shelf
Vision-Language Models", CVPR 2024 (arXiv 2311.17095). This package never imports Prefect.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pnp_core._waiting import wait_asleep

if TYPE_CHECKING:
    from pnp_core.config import AblateConfig, CorpusConfig, EvalConfig, LabelConfig, TablesConfig
    from pnp_core.errors import PnpError, UsageError
    from pnp_core.export import export_run
    from pnp_core.segmenter import Segmentation, Segmenter
    from pnp_core.tables.evaluations import read_evaluations
    from pnp_core.tuning.config import TuneConfig

_PLACES = {
    "AblateConfig": "config",
    "CorpusConfig": "config",
    "EvalConfig": "config",
    "LabelConfig": "config",
    "TablesConfig": "config",
    "TuneConfig": "tuning.config",
    "PnpError": "errors",
    "Segmentation": "segmenter",
    "Segmenter": "segmenter",
    "UsageError": "errors",
    "export_run": "export",
    "read_evaluations": "tables.evaluations",
}
"""What a person imports, and the module of each; imported when it is asked for, since some take seconds."""

__all__ = [
    "AblateConfig",
    "CorpusConfig",
    "EvalConfig",
    "LabelConfig",
    "PnpError",
    "Segmentation",
    "Segmenter",
    "TablesConfig",
    "TuneConfig",
    "UsageError",
    "export_run",
    "read_evaluations",
]


wait_asleep()  # before any module of the package loads torch


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'pnp_core' has no attribute '{name}'")
    return getattr(import_module(f"pnp_core.{_PLACES[name]}"), name)
