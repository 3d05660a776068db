"""Text of unknown origin in Markdown: shown as it is, never taken for markup."""

from __future__ import annotations

import re

from pnp_core.text.visible import visible

_MARKUP = re.compile(r"[\\`*_\[\]<>|~#$]")
# GitHub and Prefect make links of bare addresses too.
_ADDRESS = re.compile(r":(?=//)|(?<=\bwww)\.|(?<=[\w.+-])@(?=[\w-]+\.)", re.IGNORECASE)


def markdown_text(text: str) -> str:
    r"""A text from data so that Markdown, inside of a line and in a table too, shows it as it is.

    By backslashes: Prefect's pages show the numbers of character references such as ``&#95;``.

    >>> print(markdown_text("<b>|a_b & http://x.y"))
    \<b\>\|a\_b &amp; http\://x.y
    """
    one_line = " ".join(visible(text).split())
    escaped = _ADDRESS.sub(r"\\\g<0>", _MARKUP.sub(r"\\\g<0>", one_line))
    return escaped.replace("&", "&amp;")


def markdown_code(text: str) -> str:
    """A text from data as code, such as a path.

    >>> print(markdown_code("runs/a_b"), markdown_code("a`b"))
    `runs/a_b` `` a`b ``
    """
    one_line = visible(text)
    longest = max((len(run) for run in re.findall("`+", one_line)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{one_line}{space}{fence}"
