"""Which file of a folder is for people to look at."""

from __future__ import annotations

from collections.abc import Iterator

from pnp_core.errors import CorruptRunError
from pnp_core.report.page import PAGE
from pnp_core.storage.ownership import Kind, kind_of
from pnp_core.storage.run_folder import RunFolder

PAGES: dict[Kind, str] = {"run": PAGE, "tables": "index.html", "comparison": "index.html"}
"""Of the folders that have a page. Only a folder of ours is opened: another's page is not ours to serve."""
_AGAIN: dict[Kind, str] = {
    "run": "run its eval, label or tune command again, it leaves one",
    "tables": "run `pnp-ovss tables` again, it leaves one",
    "comparison": "run `pnp-ovss compare` again, it leaves one",
    "corpus": "look at its batches, which have one each, in batches/",
    "export": "look at the run it was made of",
}


def page_of(run: RunFolder) -> str:
    """The page of a run of eval, label or tune, of benchmark tables or of a comparison, relative to its folder.

    Raises:
        CorruptRunError: there is none.
    """
    kind = kind_of(run)
    # A report that was carried away alone is looked at too.
    page = PAGE if kind is None else PAGES.get(kind, PAGE)
    if not run.exists(page):
        raise CorruptRunError(f"'{run.url}' has no report ({page}): {_AGAIN[kind or 'run']}")
    return page


def pages_below(folder: RunFolder, depth: int) -> Iterator[tuple[str, str]]:
    """Folders below one that have a page, and the page's path, both relative to it; so many folders down at most."""
    for level in range(1, depth + 1):
        for page in folder.glob("*/" * level + PAGE):
            yield page.removesuffix(f"/{PAGE}"), page
        for page in folder.glob("*/" * level + "index.html"):
            name = page.removesuffix("/index.html")
            kind = kind_of(RunFolder(folder.below(name)))
            if kind is not None and PAGES.get(kind) == "index.html":
                yield name, page
