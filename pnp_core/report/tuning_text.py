"""What a tuning run found, as Markdown."""

from __future__ import annotations

from pnp_core.text.markdown import markdown_code
from pnp_core.tuning.result import BEST, TuneSummary


def tuning_markdown(summary: TuneSummary) -> str:
    """The choice, the search and the comparison as two tables."""
    best = summary.best
    lines = ["## Chosen without masks", "", "| layer | head | drop iterations | threshold | blur | reward |"]
    lines += ["|---|---|---|---|---|---|"]
    lines += [
        f"| {best['layer']} | {best['head']} | {best['iterations']} | {best['threshold']:g} | {best['blur']:g} "
        f"| {best['reward']:.4f} |"
    ]
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
