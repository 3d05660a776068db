"""Things that are found by name: the built-in ones, and those of other packages (entry points).

A package adds a method, a refiner, a source of candidates ... by naming it in its metadata, as Python's packages name
their plug-ins:

    [project.entry-points."pnp_ovss.methods"]
    my-method = "my_package.config:MyConfig"

Nothing is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from pnp_core.errors import PluginError, UnknownNameError, in_words

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Registry(Generic[Thing]):
    """Things of one kind by name.

    Attributes:
        kind: what they are, for people.
        group: of the entry points by which other packages add some; None where they cannot.
        builtin: place of each, `module:object`.
    """

    kind: str
    group: str | None
    builtin: Mapping[str, str]

    @cached_property
    def _places(self) -> dict[str, Any]:
        found = {name: EntryPoint(name, place, self.group or "") for name, place in self.builtin.items()}
        others = entry_points(group=self.group) if self.group else ()
        for entry in sorted(others, key=lambda entry: entry.name):
            if found.setdefault(entry.name, entry) != entry:
                raise PluginError(f"{self._of(entry)} has a name that is taken by '{found[entry.name].value}'")
        return found

    def __iter__(self) -> Iterator[str]:
        """The names, the built-in ones first."""
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def get(self, name: str) -> Thing:
        """The thing of that name.

        Raises:
            UnknownNameError: there is none; with those there are.
            PluginError: another package's cannot be loaded.
        """
        if name not in self._places:
            raise UnknownNameError(self.kind, name, self._places)
        entry = self._places[name]
        if name in self.builtin:
            return cast(Thing, entry.load())
        try:
            return cast(Thing, entry.load())
        except Exception as error:  # whatever another package's modules raise
            raise PluginError(f"{self._of(entry)} cannot be loaded: {in_words(error)}") from error

    def _of(self, entry: Any) -> str:
        package = getattr(entry, "dist", None)
        return f"{self.kind} '{entry.name}' ({entry.value}) of package {package.name if package else 'unknown'}"
