"""What each flow does, whoever runs it: from a configuration to a plan, its stages, and the record of the run.

Called as they are, pipelines run in this process. The Prefect flows (`flows.labelling`, `flows.evaluation` ...) call
the same functions inside a flow run.
"""

from __future__ import annotations

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any

_PLACES = {
    "eval": ("flows.pipelines.evaluation:evaluate", "flows.evaluation:evaluate_dataset"),
    "label": ("flows.pipelines.labelling:label", "flows.labelling:label_pictures"),
    "corpus": ("flows.pipelines.corpus:label_corpus", "flows.corpus:label_corpus"),
    "tune": ("flows.pipelines.tuning:tune", "flows.tuning:tune_dataset"),
    "ablate": ("flows.pipelines.tables:ablate", "flows.tables:ablate"),
}
"""A pipeline, and the flow that runs it."""


def pipeline(name: str, with_prefect: bool) -> Callable[[Any], Any]:
    """A pipeline by name, or its flow; imports Prefect for that one only.

    Args:
        name: of the flow.
    """
    plain, flow = _PLACES[name]
    return resolve_name(flow if with_prefect else plain)
