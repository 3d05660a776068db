"""Names of unknown origin."""

import re
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pnp_core.inputs.sources import open_source, safe_key
from pnp_core.inputs.sources.keys import UniqueNames, safe_ending


@given(st.lists(st.text(min_size=1, max_size=150), min_size=2, max_size=6, unique=True))
def test_keys_are_safe_and_differ_for_different_names(names):
    found = [safe_key(name) for name in names]
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,120}", key) for key in found)
    assert len(set(found)) == len(names)


@pytest.mark.parametrize("pair", [("a/b", "a__b"), ("a_/b", "a/_b"), ("-x", "x"), ("a b", "a_b"), ("é", "_")])
def test_names_that_look_alike_after_cleaning_get_different_keys(pair):
    assert safe_key(pair[0]) != safe_key(pair[1])


def test_hostile_names_give_safe_keys(shared_data, tmp_path):
    shutil.copytree(shared_data / "hostile", tmp_path / "in")
    samples = list(open_source(str(tmp_path / "in")).samples())
    found = [sample.key for sample in samples]
    # All of them, the side-car ._applefile.jpg included, each once.
    assert sorted(s.source for s in samples) == sorted(f.name for f in (shared_data / "hostile").iterdir())
    assert len(set(found)) == len(found) == 50
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", key) for key in found)


@given(st.lists(st.sampled_from(["a", "a#2", "a#2#2", "b"]), max_size=12))
def test_repeated_names_become_unique(names):
    unique = UniqueNames()
    found = [unique(name) for name in names]
    assert len(set(found)) == len(found)
    assert found[:1] == names[:1]


@pytest.mark.parametrize(
    ("name", "ending"), [("a.tar/B.PNG", "png"), ("a.d/x", "none"), ("x.p/../g", "none"), ("x.é", "bin")]
)
def test_endings_fit_a_tar_member(name, ending):
    assert safe_ending(name) == ending
