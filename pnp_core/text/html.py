"""Pages from templates."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pnp_core.text.visible import visible


@cache
def templates_of(package: str) -> Environment:
    """The templates of a package; what is put into one is escaped and made visible, and a name it does not know is an
    error.
    """
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        finalize=_finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalized(value: Any) -> Any:
    """What goes into a page: markup is ours, text may be anybody's."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def preformatted(text: str) -> Markup:
    """A text of several lines for a template."""
    return Markup.escape(visible(text, lines=True))
