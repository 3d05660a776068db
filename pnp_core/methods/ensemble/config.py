"""Configuration of the ensemble: which finished runs, and how much each counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, FiniteFloat, WithJsonSchema, model_validator

from pnp_core.errors import UsageError
from pnp_core.frozen import NO_RESULT, NO_SCORE, OF_MASKS
from pnp_core.masks.config import MaskConfig
from pnp_core.methods.base import Description, MethodConfig, Value
from pnp_core.methods.pnp.presets import PRESETS

ENSEMBLE = "ensemble"
OF_THE_RUNS = ("threshold", "ties", "blur", "background")
"""Settings of the masks stage that scores are made by: those of the runs count."""

_RUN = {"type": "string"}
_WEIGHED = {
    "type": "object",
    "properties": {"run": _RUN, "weight": {"type": "number", "minimum": 0}},
    "required": ["run"],
    "additionalProperties": False,
}


class EnsembleConfig(MethodConfig):
    """The weighted sum of what finished runs score, class by class, before refinement; without any model."""

    place: ClassVar[str] = "pnp_core.methods.ensemble.method:METHOD"
    matches: ClassVar[bool] = True  # or its runs did: their candidates are taken, not matched again
    thresholds: ClassVar[bool] = False

    name: Literal["ensemble"] = ENSEMBLE  # pyright: ignore[reportIncompatibleVariableOverride]
    """The method."""
    runs: Annotated[
        tuple[str, ...], NO_RESULT, NO_SCORE, WithJsonSchema({"type": "array", "items": {"anyOf": [_RUN, _WEIGHED]}})
    ] = ()
    """Run folder of a finished `eval` or `label` of the same pictures and classes, a path or any fsspec URL.

    What their maps and settings are is in fingerprints, not where they lie. `{run: FOLDER, weight: 0.6}` gives a weight
    with each."""
    weights: Annotated[tuple[Annotated[FiniteFloat, Field(ge=0)], ...], OF_MASKS] = ()
    """How much each run of an ensemble counts, in their order; all the same when empty.

    Only their proportions matter. A run of weight 0 plays no part."""

    @model_validator(mode="before")
    @classmethod
    def _weights_beside_runs(cls, values: Any) -> Any:
        """Runs with a weight each as runs, and weights in their order."""
        if not isinstance(values, dict):
            return values
        runs = values.get("runs")
        if not isinstance(runs, list | tuple) or not any(isinstance(one, dict) for one in runs):
            return values
        if values.get("weights"):
            raise ValueError("weights stand in runs and in weights: leave one out")
        weighed = [one if isinstance(one, dict) else {"run": one} for one in runs]
        for one in weighed:
            if "run" not in one or one.keys() - {"run", "weight"}:
                raise ValueError(f"runs: expected a folder, or {{run: FOLDER, weight: NUMBER}}, not {one}")
        return {**values, "runs": [one["run"] for one in weighed], "weights": [one.get("weight", 1) for one in weighed]}

    @model_validator(mode="after")
    def _weights_fit_runs(self) -> EnsembleConfig:
        if not self.runs:
            raise ValueError("an ensemble needs finished runs: --run FOLDER --run FOLDER")
        if self.weights and len(self.weights) != len(self.runs):
            raise ValueError(f"{len(self.weights)} weights for {len(self.runs)} runs: give each run one")
        if self.weights and not sum(self.weights):
            raise ValueError("all weights are 0: give at least one run more")
        places = [run.rstrip("/") for run in self.runs]
        if twice := next((run for run in places if places.count(run) > 1), None):
            raise ValueError(f"run '{twice}' is named twice: give it a larger weight instead")
        return self

    @classmethod
    def defaults(cls, values: Mapping[str, Any], bundled: str) -> dict[str, Any]:
        """Candidates and refinement as the bundled models' runs on the flow's images have them.

        Raises:
            UsageError: a preset, or a setting that is each run's own.
        """
        given, unset = values.get("masks"), MaskConfig().model_dump()
        masks = given if isinstance(given, Mapping) else {}
        for name in OF_THE_RUNS:
            if masks.get(name, unset[name]) != unset[name]:
                raise UsageError(f"an ensemble has no {name} of its own, its runs have theirs: leave out masks.{name}")
        usual = PRESETS[bundled]
        parts = {"salience": usual.get("salience", {}), "masks": {"crf": usual["masks"].get("crf", {})}}
        return super().defaults(values, bundled) | parts

    @classmethod
    def space(cls) -> dict[str, tuple[Value, ...]]:
        """Nothing.

        Raises:
            UsageError: always. Weights are as many as there are runs, which no list of values fits.
        """
        raise UsageError("an ensemble has no threshold or blur of its own: tune each of its runs, which have theirs")

    @property
    def shares(self) -> tuple[float, ...]:
        """Of each run its share of the sum; together they are 1.

        >>> EnsembleConfig(runs=("a", "b"), weights=(1, 3)).shares
        (0.25, 0.75)
        """
        weights = self.weights or (1.0,) * len(self.runs)
        return tuple(weight / sum(weights) for weight in weights)

    def describe(self) -> Description:
        """In words."""
        ends = [PurePosixPath(run.split("://")[-1]).name for run in self.runs]
        terms = " + ".join(f"{share:.3g} {end}" for share, end in zip(self.shares, ends, strict=True))
        return Description("none", f"{ENSEMBLE}:{'+'.join(ends)}", f"ensemble {terms}", (f"sum of {terms}",))

    def facts(self) -> dict[str, Any]:
        """What names a result: of weights their proportions."""
        return super().facts() | {"weights": list(self.shares)}

    def setting(self) -> dict[str, Any]:
        """What can change a score, besides what is in the runs."""
        return super().setting() | {"weights": list(self.shares)}
