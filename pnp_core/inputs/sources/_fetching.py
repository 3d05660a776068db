"""Pictures on other machines: several are asked for at a time, each with a limit, and none holds up the others."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Thread
from time import monotonic
from typing import Generic, TypeVar
from urllib.parse import urlsplit

FETCH_SECONDS = 30.0
"""Time for one picture."""
AT_ONCE = 8
"""Pictures that are asked for at the same time."""
SILENT = 3
"""Requests in a row without an answer after which a host is left alone."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Asked(Generic[Item, Answer]):
    """A question on its way, and when there is no more waiting for it."""

    item: Item
    answer: Future[Answer]
    deadline: float


@dataclass
class Fetches:
    """What is known of the hosts that pictures are fetched from.

    Attributes:
        seconds: limit for one picture.
    """

    seconds: float = FETCH_SECONDS
    _unanswered: Counter[str] = field(default_factory=Counter)
    _late: set[str] = field(default_factory=set)

    def is_silent(self, url: str) -> bool:
        """Whether a URL's host has not answered for some time: it is not asked then."""
        return self._unanswered[_host(url)] >= SILENT

    def note(self, url: str, answered: bool) -> None:
        """Remember whether a URL's host has answered."""
        self._unanswered[_host(url)] = 0 if answered else self._unanswered[_host(url)] + 1
        if not answered:
            self._late.add(url)

    def forgive(self) -> None:
        """Give every host and URL another chance."""
        self._unanswered.clear()
        self._late.clear()

    def silence(self, url: str) -> str:
        """Why there is nothing from a URL, in words."""
        if self.is_silent(url):
            return f"cannot be read: host '{_host(url)}' does not answer"
        return f"cannot be read: no answer within {self.seconds:g} seconds"

    def ask(
        self, items: Iterable[Item], url_of: Callable[[Item], str | None], answer: Callable[[Item], Answer]
    ) -> Iterator[tuple[Item, Answer | None]]:
        """Each item with its answer, in order; None where there was none in time, now or before.

        Args:
            url_of: where an item is asked for; None when it is at hand, and needs no waiting.
            answer: of an item; may take forever, and is then left behind.
        """
        waiting: deque[_Asked[Item, Answer]] = deque()
        for item in items:
            url = url_of(item)
            if url is None and not waiting:
                yield item, answer(item)
                continue
            if len(waiting) >= AT_ONCE:
                yield self._wait(waiting.popleft(), url_of)
            waiting.append(self._begin(item, url, answer))
        while waiting:
            yield self._wait(waiting.popleft(), url_of)

    def _begin(self, item: Item, url: str | None, answer: Callable[[Item], Answer]) -> _Asked[Item, Answer]:
        future: Future[Answer] = Future()
        if url is not None and (url in self._late or self.is_silent(url)):
            return _Asked(item, future, 0)

        def work() -> None:
            try:
                future.set_result(answer(item))
            except BaseException as error:
                future.set_exception(error)

        # Of a pool's threads the last ones would be waited for when the command ends.
        Thread(target=work, name="fetch", daemon=True).start()
        return _Asked(item, future, monotonic() + self.seconds)

    def _wait(self, asked: _Asked[Item, Answer], url_of: Callable[[Item], str | None]) -> tuple[Item, Answer | None]:
        url = url_of(asked.item)
        if url is None:
            return asked.item, asked.answer.result()
        try:
            value = asked.answer.result(max(0.0, asked.deadline - monotonic()))
        except TimeoutError:
            if asked.deadline:
                self.note(url, answered=False)
            return asked.item, None
        self.note(url, answered=True)
        return asked.item, value


def _host(url: str) -> str:
    """Name and port alone, for it is shown: there may be a password before them."""
    try:
        return urlsplit(url.rpartition("::")[2]).netloc.rpartition("@")[2]
    except ValueError:
        return url.rpartition("@")[2]
