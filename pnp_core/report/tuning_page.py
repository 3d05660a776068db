"""The report of a tuning run: one HTML page without a script, where the reward is high and what the choice looks like.

Every figure is a table as well: a heat map is one, and what was tried is listed with its reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pnp_core.data import ShardRef
from pnp_core.metrics import ConfusionMatrix
from pnp_core.report.embedding import digest, fitted, nearest, photo, resource
from pnp_core.report.layers import label_layer
from pnp_core.report.palette import display_palette
from pnp_core.report.tuning_plots import axes_of, layers_of, value_of
from pnp_core.runs.plan import class_subset, scored_labels
from pnp_core.text.html import templates_of
from pnp_core.tuning.compare import Comparison
from pnp_core.tuning.looks import Look, look_at_choice
from pnp_core.tuning.plan import TunePlan
from pnp_core.tuning.result import TuneSummary
from pnp_core.tuning.search import Trial, best_trial
from pnp_core.tuning.space import AnySetting, shown_value

SIDE = 320
"""Longer side of a thumbnail in pixels."""
SHADES = 10
"""Of a heat map, from the lowest value to the highest."""
TRIED = 300
"""Settings in the table at most, those with the highest rewards."""
WIDTH, HEIGHT = 720, 260
"""Of a figure, in pixels where there is room."""
MARGIN = (56, 24, 28, 40)
"""Left, right, above and below the plotted field."""


def tuning_page(
    plan: TunePlan,
    shards: Sequence[ShardRef],
    trials: Sequence[Trial],
    comparison: Comparison | None,
    summary: TuneSummary,
) -> bytes:
    """The page in UTF-8."""
    best = best_trial(trials)
    before = plan.maps.configured(plan.config, best.setting)
    looks = [_shown(plan, look) for look in look_at_choice(plan, shards, best.setting, comparison is not None)]
    looks.sort(key=lambda look: -(look["differ"] or 0))
    style = resource("pages.css") + resource("tuning.css")
    page = templates_of("pnp_core.report").get_template("tuning.html").render(
        summary=summary,
        dataset=plan.config.dataset,
        split=plan.config.split or plan.card.tuning_split,
        method=plan.config.method.name,
        model=plan.maps.salience.pinned.revision,
        preset=f"preset {plan.config.preset}" if plan.config.preset else "configuration",
        judge=_judge(plan),
        comparison=comparison,
        how=_HOW.get(comparison.what, comparison.what) if comparison else "",
        chosen=_setting_rows(best.setting, before, trials, comparison),
        before=before,
        unchanged=before == best.setting,
        maps=[HeatMap.of(trials, best, *axes) for axes in axes_of(best)],
        history=history(trials),
        scatter=scatter(comparison, best) if comparison else None,
        tried=_tried(trials, comparison)[:TRIED],
        columns=list(best.setting.columns),
        looks=looks,
        shown=shown_value,
        width=WIDTH,
        height=HEIGHT,
        style=style,
        style_digest=digest(style),
    )  # fmt: skip
    return page.encode()


_HOW = {"plain": "threshold and blur only", "full": "full method"}


def _judge(plan: TunePlan) -> str:
    reward = plan.config.reward
    judge = f"CLIP {reward.clip.model}" if reward.judge == "clip" else "the model's own match score"
    return f"{reward.kind}, {judge}"


def _setting_rows(
    chosen: AnySetting, before: AnySetting | None, trials: Sequence[Trial], comparison: Comparison | None
) -> list[tuple[str, str, str]]:
    """What was chosen beside what was configured: a name, and a text of each."""
    former = before.columns if before else {}
    rows = [(name, shown_value(value), _text(former.get(name))) for name, value in chosen.columns.items()]
    rewards = {trial.setting: trial.reward for trial in trials}
    rows.append(("reward", f"{rewards[chosen]:.4f}", _number(rewards.get(before) if before else None, 4)))
    if comparison:
        former_miou = comparison.miou.get(before) if before else None
        rows.append(("mIoU (not used)", _number(comparison.miou.get(chosen), 3), _number(former_miou, 3)))
    return rows


def _text(value: Any) -> str:
    return "\N{EN DASH}" if value is None else shown_value(value)


def _number(value: float | None, digits: int) -> str:
    return "not tried" if value is None else f"{value:.{digits}f}"


@dataclass(frozen=True)
class HeatMap:
    """Best reward over two axes of the space, as a table.

    Attributes:
        columns: values across.
        rows: a value each, and cells: reward, shade from 0 to `SHADES` - 1, and whether it was chosen; None where
            nothing was tried.
    """

    title: str
    across: str
    up: str
    columns: list[Any]
    rows: list[tuple[Any, list[tuple[float, int, bool] | None]]]

    @classmethod
    def of(
        cls, trials: Sequence[Trial], best: Trial, across: str, up: str | None, words: tuple[str, str, str]
    ) -> HeatMap:
        """The best reward of each two values."""
        found: dict[tuple[Any, Any], float] = {}
        for trial in trials:
            cell = value_of(trial, up), value_of(trial, across)
            found[cell] = max(trial.reward, found.get(cell, -np.inf))
        low, high = min(found.values()), max(found.values())
        chosen = value_of(best, up), value_of(best, across)
        columns, rows = (sorted({value_of(trial, axis) for trial in trials}) for axis in (across, up))

        def cell_of(at: tuple[Any, Any]) -> tuple[float, int, bool] | None:
            if at not in found:
                return None
            place = (found[at] - low) / (high - low) if high > low else 1.0
            return found[at], min(SHADES - 1, int(place * SHADES)), at == chosen

        cells = [(row, [cell_of((row, column)) for column in columns]) for row in rows]
        title = words[2].removesuffix(" (grey: not tried)")
        return cls(title, across, up or "", columns, cells)


@dataclass(frozen=True)
class Figure:
    """Points in a field, with ticks along both axes; places are pixels of the figure.

    Attributes:
        points: x, y, group, and what it is, for people.
        lines: points of a polyline, and its group.
        star: x and y of what was chosen.
        across, up: place and text of ticks.
    """

    points: list[tuple[float, float, int, str]]
    lines: list[tuple[str, int]]
    star: tuple[float, float] | None
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]
    groups: list[tuple[int, str]]


@dataclass(frozen=True)
class Axis:
    """From values to places along an axis, 0 across and 1 up."""

    values: Sequence[float]
    axis: int

    @property
    def _ends(self) -> tuple[float, float]:
        low, high = float(min(self.values)), float(max(self.values))
        return (low, high) if high > low else (low - 0.5, high + 0.5)

    def at(self, value: float) -> float:
        """In pixels of the figure."""
        (low, high), (left, right, above, below) = self._ends, MARGIN
        share = (float(value) - low) / (high - low)
        if self.axis == 0:
            return round(left + share * (WIDTH - left - right), 1)
        return round(HEIGHT - below - share * (HEIGHT - above - below), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Five of them, with their values."""
        low, high = self._ends
        digits = max(0, min(4, 2 - int(np.floor(np.log10(high - low)))))
        return [(self.at(value), f"{value:.{digits}f}") for value in np.linspace(low, high, 5)]


def history(trials: Sequence[Trial]) -> Figure:
    """Every trial, group by group, and the best so far."""
    ordered = sorted(trials, key=lambda trial: (trial.group, trial.number))
    x, y = Axis([0, max(1, len(ordered) - 1)], 0), Axis([trial.reward for trial in ordered], 1)
    points = [
        (
            x.at(place),
            y.at(trial.reward),
            trial.group,
            f"trial {trial.number + 1}: {trial.reward:.4f}, {_values(trial.setting)}",
        )
        for place, trial in enumerate(ordered)
    ]
    lines, groups = [], []
    for group in sorted({trial.group for trial in ordered}):
        own = [(place, trial) for place, trial in enumerate(ordered) if trial.group == group]
        heights = np.maximum.accumulate([trial.reward for _, trial in own])
        corners = [f"{x.at(own[0][0]):.1f},{y.at(heights[0]):.1f}"]
        for (place, _), height, former in zip(own[1:], heights[1:], heights[:-1], strict=True):
            corners += [f"{x.at(place):.1f},{y.at(former):.1f}", f"{x.at(place):.1f},{y.at(height):.1f}"]
        lines.append((" ".join(corners), group))
        groups.append((group, layers_of([trial for _, trial in own])))
    best = best_trial(ordered)
    star = next((px, py) for (px, py, *_), trial in zip(points, ordered, strict=True) if trial == best)
    ticks = sorted({round(value) for value in np.linspace(0, max(1, len(ordered) - 1), 6)})
    return Figure(points, lines, star, [(x.at(tick), str(tick + 1)) for tick in ticks], y.ticks(), groups)


def scatter(comparison: Comparison, best: Trial) -> Figure:
    """Reward against mIoU of every setting that was tried."""
    rewards = [comparison.rewards[setting] for setting in comparison.miou]
    x, y = Axis(rewards, 0), Axis(list(comparison.miou.values()), 1)
    points = [
        (x.at(reward), y.at(miou), 0, f"reward {reward:.4f}, mIoU {miou:.3f}: {_values(setting)}")
        for reward, (setting, miou) in zip(rewards, comparison.miou.items(), strict=True)
    ]
    return Figure(points, [], (x.at(best.reward), y.at(comparison.chosen)), x.ticks(), y.ticks(), [])


def _values(setting: AnySetting) -> str:
    return ", ".join(f"{name} {shown_value(value)}" for name, value in setting.columns.items())


def _tried(trials: Sequence[Trial], comparison: Comparison | None) -> list[dict[str, Any]]:
    """Every different setting, the highest reward first."""
    rewards = {trial.setting: trial.reward for trial in trials}
    order = sorted(rewards, key=lambda setting: -rewards[setting])
    miou = comparison.miou if comparison else {}
    return [{"values": list(one.columns.values()), "reward": rewards[one], "miou": miou.get(one)} for one in order]


def _shown(plan: TunePlan, look: Look) -> dict[str, Any]:
    """A picture for the template."""
    height, width = look.chosen.shape
    size = fitted(width, height, SIDE)
    colours = display_palette(look.chosen.dtype)
    layers = {"before": look.before, "chosen": look.chosen, "truth": look.truth}
    labels = np.unique(np.concatenate([one.ravel() for one in layers.values() if one is not None]))
    names = ("background", *plan.card.names)
    return {
        "key": look.key,
        "size": size,
        "photo": photo(look.pixels, size),
        "layers": {name: None if one is None else label_layer(nearest(one, size)) for name, one in layers.items()},
        "differ": None if look.before is None else float((look.before != look.chosen).mean()),
        "miou": {name: _miou(plan, one, look.truth) for name, one in layers.items() if name != "truth"},
        "classes": [
            (names[label], f"#{bytes(colours[label]).hex()}") for label in labels.tolist() if 0 < label < len(names)
        ],
    }


def _miou(plan: TunePlan, labels: np.ndarray | None, truth: np.ndarray | None) -> float | None:
    if labels is None or truth is None:
        return None
    matrix = ConfusionMatrix.of(truth, labels, len(plan.card.classes) + 1)
    value = matrix.mean_iou("present", scored_labels(plan.card, class_subset(plan.config, plan.card)))
    return None if np.isnan(value) else value
