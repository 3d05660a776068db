import sys

import pytest

from pnp_core.candidates import SOURCES
from pnp_core.errors import PluginError, UnknownNameError
from pnp_core.export import FORMATS
from pnp_core.masks.refine import REFINERS
from pnp_core.methods import METHODS
from pnp_core.methods.pnp.backbones import BACKBONES
from pnp_core.registry import Registry
from pnp_core.tuning.reward import REWARDS


@pytest.mark.parametrize("registry", [METHODS, BACKBONES, REFINERS, SOURCES, FORMATS, REWARDS], ids=lambda r: r.kind)
def test_everything_that_is_named_is_there(registry):
    assert len({id(registry.get(name)) for name in registry}) == len(list(registry)) >= 1
    with pytest.raises(
        UnknownNameError, match=f"unknown {registry.kind} 'nothing'.*available: .*{next(iter(registry))}"
    ):
        registry.get("nothing")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Another package that adds things to a group."""

    def install(*lines: str) -> None:
        info = tmp_path / "other-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("\n".join(["[things]", *lines]))
        (tmp_path / "other_things.py").write_text("thing = 7\n")
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("other_things", None)


def test_another_packages_things_come_after_the_built_in_ones_and_nothing_is_imported_before_it_is_asked_for(package):
    package("seven = other_things:thing", "broken = no_such_module:thing")
    things = Registry("thing", "things", {"zero": "builtins:print"})
    assert list(things) == ["zero", "broken", "seven"]
    assert "other_things" not in sys.modules
    assert things.get("seven") == 7
    with pytest.raises(PluginError, match=r"thing 'broken' \(no_such_module:thing\) of package other cannot be loaded"):
        things.get("broken")


def test_a_name_that_is_taken_is_refused(package):
    package("zero = other_things:thing")
    with pytest.raises(
        PluginError, match=r"thing 'zero' .* of package other has a name that is taken by 'builtins:print'"
    ):
        list(Registry("thing", "things", {"zero": "builtins:print"}))


def test_where_nobody_else_can_add_no_package_is_asked(package):
    package("seven = other_things:thing")
    assert list(Registry("thing", None, {"zero": "builtins:print"})) == ["zero"]
