"""Text from data as people see it."""

import json
import pickle
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pnp_core.errors import CorruptRunError, PnpError, UnknownNameError
from pnp_core.text.html import preformatted, templates_of
from pnp_core.text.visible import visible, visible_json

JOINERS = "\u200c\u200d"
# Formats of Arabic and its relatives that are drawn, under the digits that follow.
DRAWN = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
ANYTHING = st.text(st.characters(exclude_categories=()))  # lone surrogates too


def acts_or_hides(character: str) -> bool:
    """By Unicode's categories: controls, surrogates, separators of lines, and formats that are not drawn."""
    hieroglyphs = 0x13430 <= ord(character) <= 0x1345F  # joined to squares: seen by what they do
    kept = character in JOINERS + DRAWN or hieroglyphs
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp", "Cf") and not kept


def test_every_character_that_acts_or_hides_is_spelled_out():
    # Of those that are not assigned some are spelled out too: they are invisible as well.
    assigned = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) != "Cn"]
    assert [f"U+{ord(c):04X}" for c in assigned if acts_or_hides(c) and visible(c) == c] == []
    others = "".join(c for c in assigned if not acts_or_hides(c))
    assert visible(others) == others


@given(ANYTHING)
def test_nothing_that_comes_out_acts_or_hides(text):
    shown = visible(text)
    assert not any(acts_or_hides(character) for character in shown)
    assert visible(shown) == shown
    shown.encode()


@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cf", "Cn"))))
def test_printable_text_stays_as_it_is(text):
    assert visible(text) == text


@given(ANYTHING, ANYTHING)
def test_different_texts_are_shown_differently_but_for_backslashes(one, other):
    if "\\" not in one + other:
        assert (visible(one) == visible(other)) == (one == other)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\nb\tc", r"a\x0ab\x09c"),
        ("a\x9b31mb\x7f", r"a\x9b31mb\x7f"),
        ("cat\u202egnp.exe", r"cat\u202egnp.exe"),
        ("\u2066x\u2069\u200f\u061c\ufeff", r"\u2066x\u2069\u200f\u061c\ufeff"),
        ("a\U000e0041", r"a\U000e0041"),
        ("caf\udce9", r"caf\udce9"),
        ("نمی\u200cشود क्\u200dष 👩\u200d🚀 ❤️ naïve 猫", "نمی\u200cشود क्\u200dष 👩\u200d🚀 ❤️ naïve 猫"),
    ],
)
def test_how_it_is_shown(text, shown):
    assert visible(text) == shown


def test_lines_of_our_own_text_stay():
    assert visible("a: b\r\nc: \x1b\n", lines=True) == "a: b\\x0d\nc: \\x1b\n"


@given(
    st.recursive(ANYTHING | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(ANYTHING, inner))
)
def test_json_keeps_its_value_and_shows_all(value):
    line = visible_json(value)
    assert not any(acts_or_hides(character) for character in line)
    assert json.loads(line) == json.loads(json.dumps(value))


def test_json_with_an_indent_keeps_its_lines():
    assert visible_json({"a": "ö\u202e"}, indent=1) == '{\n "a": "ö\\u202e"\n}'


def test_errors_show_what_they_name_wherever_they_go():
    errors = [PnpError("no 'a\x1b[2J\n\u202e'"), CorruptRunError("x\x9b"), UnknownNameError("split", "v\x1b", ["val"])]
    for error in [*errors, *(pickle.loads(pickle.dumps(error)) for error in errors)]:
        assert not any(acts_or_hides(character) for character in str(error))
    assert str(errors[0]) == r"no 'a\x1b[2J\x0a\u202e'"
    assert r"unknown split 'v\x1b'" in str(errors[2])


def test_templates_show_texts_and_keep_their_own_markup():
    template = templates_of("pnp_core.report").from_string(
        "{{ a }}|{{ b }}|{% for x in c %}{{ x }}{% endfor %}|{{ d }}"
    )
    page = template.render(a="<i>\x1b\u202e", b=preformatted("<k>\n\x9b"), c=["\n"], d=3)
    assert page == r"&lt;i&gt;\x1b\u202e|&lt;k&gt;" + "\n" + r"\x9b|\x0a|3"
