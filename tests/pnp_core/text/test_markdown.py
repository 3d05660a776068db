"""Text from data in Markdown."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pnp_core.text.markdown import markdown_code, markdown_text


@given(st.text())
def test_text_is_one_line_without_markup(text):
    shown = markdown_text(text)
    assert "\n" not in shown
    plain = re.sub(r"\\[!-/:-@\[-`{-~]", "", shown).replace("&amp;", "")
    assert not re.search(r"[\\`*_\[\]<>|~#$&]", plain)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("test_00000", r"test\_00000"),
        ("a\x1b[2J", r"a\\x1b\[2J"),
        ("![x](http://e.x/y.png)", r"!\[x\](http\://e.x/y.png)"),
        ("www.e.x, WWW.E.X, awww.", r"www\.e.x, WWW\.E.X, awww."),
        ("me@e.x tiny@0af3", r"me\@e.x tiny@0af3"),
        ("R&D &#95;", r"R&amp;D &amp;\#95;"),
    ],
)
def test_how_text_is_written(text, shown):
    assert markdown_text(text) == shown


@given(st.text("a`\n ", min_size=1))
def test_code_cannot_be_left(text):
    code = markdown_code(text)
    fence = re.match("`+", code)[0]
    assert code.endswith(fence)
    assert all(len(run) != len(fence) for run in re.findall("`+", code[len(fence) : -len(fence)]))
    assert "\n" not in code
