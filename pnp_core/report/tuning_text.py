"""What a tuning run found, as Markdown."""

from __future__ import annotations

from pnp_core.text.markdown import markdown_code
from pnp_core.tuning.result import BEST, TuneSummary
from pnp_core.tuning.space import shown_value


def tuning_markdown(summary: TuneSummary) -> str:
    """The choice, the search and the comparison as two tables."""
    best = summary.best
    named = ["drop iterations" if name == "iterations" else name for name in best]
    lines = ["## Chosen without masks", "", f"| {' | '.join(named)} |", "|" + "---|" * len(named)]
    chosen = [shown_value(value) for name, value in best.items() if name != "reward"]
    lines += [f"| {' | '.join(chosen)} | {best['reward']:.4f} |"]
    lines += ["", f"{summary.trials} trials of {summary.settings} settings, {summary.pairs} (picture, class) pairs."]
    lines += [f"`{BEST}` and the plots (`tuning.png`) are in the run folder {markdown_code(summary.out)}."]
    if comparison := summary.comparison:
        rank = comparison["rank_correlation"]
        lines += ["", "## Compared with masks (not used in the choice)", ""]
        lines += ["| pictures | mIoU chosen | best tried | median tried | rank correlation |", "|---|---|---|---|---|"]
        lines += [
            f"| {comparison['images']} | {comparison['miou_chosen']:.3f} | {comparison['miou_best']:.3f} "
            f"| {comparison['miou_median']:.3f} | {'-' if rank is None else f'{rank:+.2f}'} |"
        ]
    return "\n".join(lines) + "\n"
