"""What a search chooses from: settings, each of them values by name, and spaces, which are products of lists."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Generic, TypeVar

from pnp_core.methods.base import Value


def shown_value(value: Value) -> str:
    """For people.

    >>> shown_value(0.10), shown_value(3), shown_value("keep"), shown_value(True)
    ('0.1', '3', 'keep', 'True')
    """
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


class AnySetting(ABC):
    """One point of a search space; equal ones are one."""

    @property
    @abstractmethod
    def columns(self) -> dict[str, Value]:
        """Its values by name, for logs and people."""


Setting = TypeVar("Setting", bound=AnySetting)


class AnySpace(ABC, Generic[Setting]):
    """The values a search chooses from; the space is their product."""

    @property
    @abstractmethod
    def lists(self) -> tuple[tuple[Any, ...], ...]:
        """The values along each axis."""

    @abstractmethod
    def point(self, values: Sequence[Any]) -> Setting:
        """The setting of one value along each axis."""

    def groups(self, number: int) -> list[AnySpace[Setting]]:
        """Cut it into as many parts at most, each to be searched by itself; one that has nothing to be cut along is
        left whole.
        """
        return [self]

    def __len__(self) -> int:
        return prod(self.sizes)

    def settings(self) -> Iterator[Setting]:
        """Every point."""
        return map(self.point, product(*self.lists))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of the lists."""
        return tuple(len(values) for values in self.lists)

    def at(self, position: Sequence[int]) -> Setting:
        """The point at some places in the lists."""
        return self.point([values[place] for values, place in zip(self.lists, position, strict=True)])


@dataclass(frozen=True)
class PathSetting(AnySetting):
    """Values by their paths in a configuration, such as `masks.threshold`."""

    values: tuple[tuple[str, Value], ...]

    @property
    def columns(self) -> dict[str, Value]:
        """The values by path."""
        return dict(self.values)


@dataclass(frozen=True)
class PathSpace(AnySpace[PathSetting]):
    """Lists of values by path.

    >>> space = PathSpace((("masks.threshold", (0.1, 0.3)), ("masks.blur", (0.0,))))
    >>> len(space), space.at((1, 0)).columns
    (2, {'masks.threshold': 0.3, 'masks.blur': 0.0})
    """

    by_path: tuple[tuple[str, tuple[Value, ...]], ...]

    @property
    def lists(self) -> tuple[tuple[Value, ...], ...]:
        """The values along each axis."""
        return tuple(values for _, values in self.by_path)

    def point(self, values: Sequence[Value]) -> PathSetting:
        """The setting of one value along each axis."""
        return PathSetting(tuple(zip((path for path, _ in self.by_path), values, strict=True)))
