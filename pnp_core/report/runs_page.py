"""The list of runs that `pnp-ovss view` shows of a folder with several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pnp_core.report.embedding import digest, resource
from pnp_core.runs.record import RecordedSummary
from pnp_core.text.html import templates_of


@dataclass(frozen=True)
class RunRow:
    """A folder with a page.

    Attributes:
        name: path below the folder.
        link: quoted, relative to the list.
        summary: of a finished run of eval or label.
        what: it is where it has no summary, for people.
    """

    name: str
    link: str
    summary: RecordedSummary | None
    what: str


def runs_page(folder: str, runs: Sequence[RunRow], more: bool) -> bytes:
    """The page, in UTF-8.

    Args:
        folder: that they are in.
        more: whether there may be more of them.
    """
    script, style = resource("runs.js"), resource("report.css")
    page = templates_of("pnp_core.report").get_template("runs.html").render(
        folder=folder,
        runs=runs,
        more=more,
        script=script,
        style=style,
        script_digest=digest(script),
        style_digest=digest(style),
    )  # fmt: skip
    return page.encode()
