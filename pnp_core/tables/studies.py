"""What the tables vary: for a base configuration the settings of every row and column.

The same definition says which runs `ablate` makes and which scores `tables` looks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pnp_core.config import EvalConfig
from pnp_core.frozen import merge
from pnp_core.methods.pnp.backbones.cards import backbone_card
from pnp_core.methods.pnp.config import LEAST_SIDE, MOST_SIDE, PnpConfig
from pnp_core.methods.pnp.layers import useful_layers
from pnp_core.tables.evaluations import SUBSETS, Facts
from pnp_core.tuning.config import SpaceConfig

SPACE = SpaceConfig()
"""Thresholds and blurs are those the tuning's search chooses from."""
FRACTIONS = (0.1, 0.3, 0.5)
"""Shares of patches or of salience dropped after each pass."""
SIZES = (2 / 3, 1, 4 / 3, 2)
"""Resolutions, relative to the base's."""
_NO_CRF = {"crf": {"name": "off"}}


@dataclass(frozen=True)
class Variant:
    """A cell: where it stands, and its configuration."""

    row: str
    column: str
    config: EvalConfig


@dataclass(frozen=True)
class Study:
    """A table.

    Attributes:
        rows, columns: what varies along them; one that has no columns of its own has a column per run.
        heat: cells are coloured by value.
        note: what a reader should know.
        variants: the cells around a base configuration.
    """

    name: str
    title: str
    rows: str
    columns: str
    variants: Callable[[EvalConfig, Facts], Iterable[Variant]]
    heat: bool = False
    note: str = ""


def varied(base: EvalConfig, **parts: Any) -> EvalConfig:
    """A configuration with some parts replaced."""
    return EvalConfig.model_validate(merge(base.model_dump(), parts))


def _pnp(base: EvalConfig) -> PnpConfig | None:
    """The settings of PnP-OVSS; None of another method, which has no such parts to vary."""
    return base.method if isinstance(base.method, PnpConfig) else None


def _ablation(base: EvalConfig, facts: Facts) -> Iterable[Variant]:
    """Attention alone; with the gradient; all passes; the blur; the CRF, which is the whole method."""
    if (method := _pnp(base)) is None:
        return
    bare = {"blur": 0.0, **_NO_CRF}
    one = {"iterations": 1}
    attention = {"kind": "attention", "dropout": one, "passes": None}
    yield Variant("attention", "", varied(base, method=attention, masks=bare))
    yield Variant("attention x gradient (GradCAM)", "", varied(base, method={"passes": 1}, masks=bare))
    if method.all_passes > 1:
        yield Variant("with Salience DropOut", "", varied(base, masks=bare))
    yield Variant("with blur", "", varied(base, masks=_NO_CRF))
    yield Variant("with dense CRF", "", base)


def _layers(base: EvalConfig, facts: Facts) -> Iterable[Variant]:
    if (method := _pnp(base)) is None or facts.model is None:
        return
    for layer in useful_layers(facts.model.layers, method.kind):
        for head in range(facts.model.heads):
            yield Variant(str(layer), str(head), varied(base, method={"layer": layer, "head": head}))


def _iterations(base: EvalConfig, facts: Facts) -> Iterable[Variant]:
    """The first passes are the same however many follow: they are taken from the salience that is there."""
    method = _pnp(base)
    for passes in range(1, method.all_passes + 1 if method else 1):
        yield Variant(str(passes), "", varied(base, method={"passes": passes}))


def _strategies(base: EvalConfig, facts: Facts) -> Iterable[Variant]:
    if (method := _pnp(base)) is None or method.all_passes == 1:
        return  # nothing is dropped
    yield Variant(method.dropped, "", base)
    for strategy in ("fraction", "mass"):
        for amount in FRACTIONS:
            config = varied(base, method={"dropout": {"strategy": strategy, "amount": amount}})
            if config != base and (other := _pnp(config)):
                yield Variant(other.dropped, "", config)


def _thresholds(base: EvalConfig, facts: Facts) -> Iterable[Variant]:
    if not base.method.thresholds or not {"masks.threshold", "masks.blur"} <= base.method.space().keys():
        return  # a method without both of them
    for threshold in sorted({*SPACE.thresholds, base.masks.threshold}):
        for blur in sorted({*SPACE.blurs, base.masks.blur}):
            yield Variant(f"{threshold:g}", f"{blur:g}", varied(base, masks={"threshold": threshold, "blur": blur}))


def _resolutions(base: EvalConfig, facts: Facts) -> Iterable[Variant]:
    if (method := _pnp(base)) is None:
        return
    patch = backbone_card(method.backbone.name).patch_size
    height, width = method.backbone.sides
    sizes = {
        tuple(max(LEAST_SIDE, round(side * factor / patch) * patch) for side in (height, width)) for factor in SIZES
    }
    for size in sorted({*(s for s in sizes if max(s) <= MOST_SIDE), (height, width)}):
        side = size[0] if size[0] == size[1] else size
        config = varied(base, method={"backbone": {"image_size": side}})
        if other := _pnp(config):
            yield Variant(other.size, "", config)


def _subsets(base: EvalConfig, facts: Facts) -> Iterable[Variant]:
    """The class subsets of the dataset card, by themselves: other classes are neither asked about nor scored."""
    for name, classes in facts.subsets.items():
        yield Variant(name, "", varied(base, only_classes=classes, out=f"{base.out.rstrip('/')}/{SUBSETS}/{name}"))


_REMEMBERED = "Sets named `unseen` were written down from memory and not compared with the papers that use them."

STUDIES = {
    study.name: study
    for study in (
        Study("ablation", "What each part of the method adds", "method", "", _ablation),
        Study("iterations", "Drop iterations", "passes", "", _iterations),
        Study("strategies", "What is dropped after each pass", "dropped", "", _strategies),
        Study("thresholds", "Threshold and blur", "threshold", "blur", _thresholds, heat=True),
        Study("resolutions", "Resolutions", "model pixels a side", "", _resolutions),
        Study("layers", "Cross-attention layer and head", "layer", "head", _layers, heat=True),
        Study("subsets", "Class subsets", "classes", "", _subsets, note=_REMEMBERED),
    )
}
"""By the name that `ablate --tables` takes, the cheapest first."""
