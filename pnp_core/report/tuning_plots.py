"""Pictures of a tuning run: where the reward is high, how the search went, and what masks say of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pnp_core.tuning.compare import Comparison
from pnp_core.tuning.search import Trial, best_trial
from pnp_core.tuning.space import shown_value

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito: told apart by all eyes
_BEST = "Best reward of each"


def tuning_figure(trials: Sequence[Trial], comparison: Comparison | None) -> bytes:
    """All plots on one page, as PNG.

    Args:
        trials: of all groups.
        comparison: with masks, for a fourth plot.
    """
    best = best_trial(trials)
    maps = axes_of(best)
    rows = (len(maps) + 3) // 2
    figure = Figure(figsize=(13, 4.75 * rows), layout="constrained")
    places = list(figure.subplots(rows, 2).flat)
    figure.suptitle(f"Tuning without masks: best of {len(trials)} trials, reward {best.reward:.4f}", fontsize=15)
    for axes, (across, up, words) in zip(places, maps, strict=False):
        _heat_map(figure, axes, trials, best, across, up, words)
    history, masks, *left = places[len(maps) :]
    _history(history, trials)
    _against_masks(masks, comparison, best)
    for axes in left:
        axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def axes_of(best: Trial) -> list[tuple[str, str | None, tuple[str, str, str]]]:
    """The axes of the space two by two: names across and up (None where one is left alone), and words for them."""
    names = list(best.setting.columns)
    if "layer" in names:
        pairs = ("layer", "head"), ("threshold", "blur")
        words = ("layer, counted from 0", "head, counted from 0", "Best reward of each layer and head")
        return [(*pairs[0], words), (*pairs[1], (*pairs[1], f"{_BEST} threshold and blur (grey: not tried)"))]
    found = []
    for across, up in zip_longest(names[::2], names[1::2]):
        what = f"{across} and {up} (grey: not tried)" if up else across
        found.append((across, up, (across, up or "", f"{_BEST} {what}")))
    return found


def _heat_map(
    figure: Figure,
    axes: Axes,
    trials: Sequence[Trial],
    best: Trial,
    across: str,
    up: str | None,
    words: tuple[str, str, str],
) -> None:
    """Best reward over two axes of the space; what was not tried stays grey."""
    columns, rows = (sorted({value_of(trial, axis) for trial in trials}) for axis in (across, up))
    values = np.full((len(rows), len(columns)), np.nan)
    for trial in trials:
        cell = rows.index(value_of(trial, up)), columns.index(value_of(trial, across))
        values[cell] = np.nanmax([values[cell], trial.reward])
    axes.set_facecolor("#cccccc")
    image = axes.imshow(values, origin="lower", aspect="auto", cmap="viridis")
    for row, column in np.argwhere(np.isfinite(values)):
        shade = "black" if values[row, column] > (np.nanmin(values) + np.nanmax(values)) / 2 else "white"
        axes.text(column, row - 0.33, f"{values[row, column]:.3f}", ha="center", va="center", color=shade, fontsize=8)
    _star(axes, columns.index(value_of(best, across)), rows.index(value_of(best, up)), "chosen")
    axes.set_xticks(range(len(columns)), [shown_value(value) for value in columns])
    axes.set_yticks(range(len(rows)), [shown_value(value) for value in rows])
    _name(axes, *words)
    figure.colorbar(image, ax=axes, label="reward")


def value_of(trial: Trial, axis: str | None) -> Any:
    """Where a trial lies along an axis of the space."""
    return trial.setting.columns[axis] if axis else ""


def _history(axes: Axes, trials: Sequence[Trial]) -> None:
    """Every trial, group by group, and the best so far."""
    position = 0
    for group in sorted({trial.group for trial in trials}):
        own = [trial for trial in trials if trial.group == group]
        where, rewards = np.arange(position, position + len(own)), np.array([trial.reward for trial in own])
        colour = _COLOURS[group % len(_COLOURS)]
        axes.scatter(where, rewards, s=14, alpha=0.6, color=colour, label=f"group {group}: {layers_of(own)}")
        axes.step(where, np.maximum.accumulate(rewards), where="post", color=colour)
        position += len(own)
    if len({trial.group for trial in trials}) > 1:
        axes.legend(loc="best")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    _name(axes, "trial, one group after the other", "reward", "Reward over trials; lines: best so far")


def layers_of(trials: Sequence[Trial]) -> str:
    """What a group is of; where there are no layers there is one group, and it is of all."""
    layers = sorted({int(trial.setting.columns.get("layer", 0)) for trial in trials})
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"


def _against_masks(axes: Axes, comparison: Comparison | None, best: Trial) -> None:
    """Reward against mIoU, clearly marked as not used."""
    if comparison is None:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no masks to compare with", ha="center", va="center", color="#666666", fontsize=13)
        return
    rewards = [comparison.rewards[setting] for setting in comparison.miou]
    axes.scatter(rewards, list(comparison.miou.values()), s=16, alpha=0.7, color=_COLOURS[0])
    _star(axes, best.reward, comparison.chosen, "chosen by the reward")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    rank = comparison.rank_correlation
    shown = "undefined" if rank is None else f"{rank:+.2f}"
    how = {"plain": "threshold and blur only", "full": "full method"}[comparison.what]
    _name(
        axes, "reward", f"mIoU ({how})",
        f"Masks, NOT USED in the choice: {comparison.images} pictures, rank correlation {shown}",
    )  # fmt: skip


def _star(axes: Axes, x: float, y: float, label: str) -> None:
    axes.scatter([x], [y], s=220, marker="*", c="white", edgecolors="black", label=label, zorder=3)


def _name(axes: Axes, across: str, up: str, title: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_title(title)
